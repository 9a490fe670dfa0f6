#include "passthrough/journal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

constexpr int kVersion = 1;
constexpr TakenSet::State kStates[] = {TakenSet::State::Taking, TakenSet::State::Taken, TakenSet::State::Releasing};

Result<void> write_durably(const std::filesystem::path& file, const std::string& content) {
  const auto temporary = file.string() + ".new";
  const Descriptor out(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!out.valid()) return fail(VmError::from_os(errno, "write journal", temporary));
  std::string_view rest = content;
  while (!rest.empty()) {
    const ssize_t length = ::write(out.get(), rest.data(), rest.size());
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return fail(VmError::from_os(errno, "write journal", temporary));
    rest.remove_prefix(static_cast<std::size_t>(length));
  }
  if (::fsync(out.get()) != 0) return fail(VmError::from_os(errno, "write journal", temporary));
  if (::rename(temporary.c_str(), file.c_str()) != 0) return fail(VmError::from_os(errno, "write journal", file));
  const Descriptor folder(::open(file.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || ::fsync(folder.get()) != 0) return fail(VmError::from_os(errno, "write journal", file));
  return {};
}

}  // namespace

std::string write_set(const TakenSet& set, const std::string& boot_id) {
  nlohmann::ordered_json json{{"version", kVersion}, {"boot_id", boot_id}, {"state", to_string(set.state)}};
  json["devices"] = nlohmann::ordered_json::array();
  for (const TakenDevice& device : set.devices) {
    json["devices"].push_back({{"address", device.address.to_string()},
                               {"path", device.device_path},
                               {"vendor", device.vendor},
                               {"device", device.device},
                               {"former_driver", device.former_driver},
                               {"former_override", device.former_override}});
  }
  return json.dump(2) + "\n";
}

Result<TakenSet> read_set(std::string_view text, const std::string& boot_id, const std::string& name) {
  const auto damaged = [&] {
    return fail(VmError(ErrorCode::Corrupt, "read journal", name, "not a journal of this tool")
                    .with_hint("look at it, bring the devices in order by hand, and remove it"));
  };
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || json.value("version", nlohmann::json()) != kVersion) return damaged();
  const auto text_of = [](const nlohmann::json& object, const char* key) -> std::optional<std::string> {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? std::optional(found->get<std::string>()) : std::nullopt;
  };
  const auto id_of = [](const nlohmann::json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_number_unsigned() ? found->get<std::uint16_t>() : std::uint16_t{0};
  };
  TakenSet set;
  const auto state = text_of(json, "state"), boot = text_of(json, "boot_id");
  const auto known = std::ranges::find_if(kStates, [&](TakenSet::State s) { return state && to_string(s) == *state; });
  const auto devices = json.find("devices");
  if (known == std::end(kStates) || !boot || devices == json.end() || !devices->is_array()) return damaged();
  set.state = *known;
  set.stale = *boot != boot_id;
  for (const auto& entry : *devices) {
    if (!entry.is_object()) return damaged();
    const auto address = PciAddress::parse(text_of(entry, "address").value_or(""));
    const auto driver = text_of(entry, "former_driver"), override = text_of(entry, "former_override");
    // Names of drivers become parts of paths.
    if (!address || !driver || !override || driver->find('/') != std::string::npos) return damaged();
    set.devices.push_back({*address, *driver, *override, text_of(entry, "path").value_or(""), id_of(entry, "vendor"),
                           id_of(entry, "device")});
  }
  return set;
}

Result<Journal> Journal::open(const std::filesystem::path& folder, const std::filesystem::path& root, bool create) {
  std::error_code error;
  if (create) std::filesystem::create_directories(folder, error);
  Journal journal;
  journal.folder_ = folder;
  const auto lock = folder / "lock";
  journal.lock_ = Descriptor(::open(lock.c_str(), create ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0600));
  if (!journal.lock_.valid()) return fail(VmError::from_os(errno, "open journal", folder.string()));
  while (::flock(journal.lock_.get(), create ? LOCK_EX : LOCK_SH) != 0)
    if (errno != EINTR) return fail(VmError::from_os(errno, "lock journal", folder.string()));
  if (const auto boot = read_kernel_file(root / "proc/sys/kernel/random/boot_id")) journal.boot_id_ = text::trim(*boot);
  return journal;
}

Result<std::vector<Journal::Entry>> Journal::entries() const {
  std::vector<Entry> found;
  for (const std::string& name : list_directory(folder_)) {
    if (!name.ends_with(".json")) continue;
    const auto content = read_kernel_file(folder_ / name);
    if (!content) return fail(content.error());
    auto set = read_set(*content, boot_id_, folder_ / name);
    if (!set) return fail(set.error());
    found.push_back({folder_ / name, std::move(*set)});
  }
  return found;
}

Result<std::filesystem::path> Journal::save(const TakenSet& set,
                                            const std::optional<std::filesystem::path>& file) const {
  const auto path = file ? *file : folder_ / (set.devices.front().address.to_string() + ".json");
  if (auto written = write_durably(path, write_set(set, boot_id_)); !written) return fail(written.error());
  return path;
}

Result<void> Journal::remove(const std::filesystem::path& file) const {
  if (::unlink(file.c_str()) != 0 && errno != ENOENT)
    return fail(VmError::from_os(errno, "remove journal", file.string()));
  return {};
}

}  // namespace vm_platform
