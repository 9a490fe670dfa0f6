#include "passthrough/journal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "passthrough/durable_file.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

constexpr int kVersion = 1;
constexpr TakenSet::State kStates[] = {TakenSet::State::Taking, TakenSet::State::Taken, TakenSet::State::Releasing};

nlohmann::ordered_json display_json(const FormerDisplay& display) {
  return {{"vga_decodes", display.vga_decodes},
          {"framebuffer", display.framebuffer},
          {"framebuffer_driver", display.framebuffer_driver},
          {"consoles", display.consoles}};
}

std::string text_at(const nlohmann::json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// A name that becomes part of a path.
bool plain(const std::string& name) { return name.find('/') == std::string::npos && !name.starts_with('.'); }

/// False where a name in it could lead out of its folder.
bool read_display(const nlohmann::json& json, FormerDisplay& display) {
  display.vga_decodes = text_at(json, "vga_decodes");
  display.framebuffer = text_at(json, "framebuffer");
  display.framebuffer_driver = text_at(json, "framebuffer_driver");
  bool good = plain(display.framebuffer) && plain(display.framebuffer_driver);
  if (json.is_object() && json.contains("consoles") && json["consoles"].is_array()) {
    for (const auto& console : json["consoles"]) {
      if (!console.is_string()) continue;
      display.consoles.push_back(console.get<std::string>());
      good = good && plain(display.consoles.back());
    }
  }
  return good;
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
                               {"former_override", device.former_override},
                               {"former_reset_methods", device.former_reset_methods},
                               {"former_bar_sizes", device.former_bar_sizes},
                               {"display", display_json(device.display)},
                               {"rom_file", device.guest.rom_file},
                               {"hide_hypervisor", device.guest.hide_hypervisor}});
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
    FormerDisplay display;
    if (!address || !driver || !override || !plain(*driver)) return damaged();
    if (entry.contains("display") && !read_display(entry["display"], display)) return damaged();
    TakenDevice taken{
        *address, *driver, *override, text_at(entry, "path"), id_of(entry, "vendor"), id_of(entry, "device")};
    taken.former_reset_methods = text_at(entry, "former_reset_methods");
    taken.former_bar_sizes = text_at(entry, "former_bar_sizes");
    taken.display = std::move(display);
    taken.guest = {text_at(entry, "rom_file"), entry.value("hide_hypervisor", nlohmann::json()) == true};
    set.devices.push_back(std::move(taken));
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
  if (auto written = write_durably(path, write_set(set, boot_id_), "write journal"); !written)
    return fail(written.error());
  return path;
}

Result<void> Journal::remove(const std::filesystem::path& file) const { return remove_durably(file, "remove journal"); }

}  // namespace vm_platform
