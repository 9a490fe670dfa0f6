#include <algorithm>
#include <vm_platform/sriov_boot.hpp>

#include "passthrough/durable_file.hpp"
#include "passthrough/remember.hpp"
#include "passthrough/sysfs.hpp"

namespace vm_platform {
namespace {

constexpr const char* kOperation = "write what is set up at boot";

std::filesystem::path file_of(const std::filesystem::path& config) { return config / "sriov.json"; }

std::unexpected<VmError> damaged(const std::filesystem::path& file) {
  return fail(VmError(ErrorCode::Corrupt, "read", file.string(), "it is not a file of this tool")
                  .with_hint("remove it, and store the SR-IOV file again"));
}

/// The kernel lists a device, and the file with its number of virtual functions, before a driver has it. Only the
/// driver makes functions, and their settings go through its network interface, which comes later still.
Result<void> check_ready(const VfManager& manager, const SriovDeclaration& declaration) {
  const auto missing = [&](std::string reason, const char* hint) {
    return fail(
        VmError(ErrorCode::NotFound, "set up virtual functions of", manager.name(), std::move(reason)).with_hint(hint));
  };
  if (declaration.count != 0 && manager.driver().empty())
    return missing("no driver is bound to it", "load its driver, or wait longer for it: --wait SECONDS");
  const bool settings =
      std::ranges::any_of(declaration.functions, [](const auto& entry) { return !entry.second.empty(); });
  if (settings && manager.interface().empty()) {
    return missing("it has no network interface yet, which the functions' settings need",
                   "wait longer for its driver: --wait SECONDS");
  }
  return {};
}

/// What the device of a declaration is called now; an error until it can be set up as declared. What is not on PCI
/// keeps its name.
Result<std::string> name_now(const nlohmann::json& device, const SriovDeclaration& declaration,
                             const std::filesystem::path& sysfs) {
  std::string name;
  if (const auto identity = read_identity(device)) {
    const auto functions = scan_pci(sysfs);
    if (!functions) return fail(functions.error());
    const auto address = find_device(*identity, *functions);
    if (!address) return fail(address.error());
    name = address->to_string();
  } else {
    const auto stored = device.is_object() ? device.value("name", nlohmann::json()) : nlohmann::json();
    if (!stored.is_string()) return fail(ErrorCode::Corrupt, "read what is set up at boot", {}, "a device has no name");
    name = stored.get<std::string>();
  }
  const auto manager = VfManager::open(name, sysfs);
  if (!manager) return fail(manager.error());
  if (auto ready = check_ready(*manager, declaration); !ready) return fail(ready.error());
  return name;
}

}  // namespace

Result<void> store_sriov(std::string_view text, const std::filesystem::path& sysfs,
                         const std::filesystem::path& config) {
  const auto declarations = parse_sriov_file(text);
  if (!declarations) return fail(declarations.error());
  nlohmann::ordered_json json{{"version", kBootFileVersion}, {"text", text}};
  json["devices"] = nlohmann::ordered_json::array();
  for (const SriovDeclaration& declaration : *declarations) {
    const auto manager = VfManager::open(declaration.physical_function, sysfs);
    if (!manager) return fail(manager.error());
    const auto device = manager->device();
    json["devices"].push_back(device ? identity_json(identify(*device))
                                     : nlohmann::ordered_json{{"name", declaration.physical_function}});
  }
  return write_durably(file_of(config), json.dump(2) + "\n", kOperation, 0644);
}

Result<std::vector<SriovDeclaration>> stored_sriov(std::chrono::milliseconds wait, const std::filesystem::path& sysfs,
                                                   const std::filesystem::path& config) {
  const auto json = read_boot_file(file_of(config));
  if (!json) return fail(json.error());
  if (json->is_null()) return std::vector<SriovDeclaration>{};
  const auto content = json->find("text"), devices = json->find("devices");
  if (content == json->end() || !content->is_string() || devices == json->end() || !devices->is_array())
    return damaged(file_of(config));
  auto declarations = parse_sriov_file(content->get<std::string>());
  if (!declarations) return declarations;
  if (declarations->size() != devices->size()) return damaged(file_of(config));
  const auto deadline = std::chrono::steady_clock::now() + wait;
  for (std::size_t i = 0; i < declarations->size(); ++i) {
    auto name = retry_until(deadline, [&] { return name_now((*devices)[i], (*declarations)[i], sysfs); });
    if (!name) return fail(name.error());
    (*declarations)[i].physical_function = std::move(*name);
  }
  return declarations;
}

Result<void> forget_sriov(const std::filesystem::path& config) { return remove_durably(file_of(config), kOperation); }

}  // namespace vm_platform
