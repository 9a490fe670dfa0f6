#include "passthrough/remember.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vm_platform/passthrough.hpp>

#include "passthrough/durable_file.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

constexpr const char* kOperation = "write what is taken at boot";

std::filesystem::path file_of(const PassthroughOptions& options) { return options.config / "passthrough.json"; }

Result<void> save(const std::vector<RememberedDevice>& devices, const std::filesystem::path& file) {
  if (devices.empty()) return remove_durably(file, kOperation);
  nlohmann::ordered_json json{{"version", kBootFileVersion}, {"devices", nlohmann::ordered_json::array()}};
  for (const RememberedDevice& device : devices) {
    auto entry = identity_json(device.identity);
    entry["requested"] = device.requested;
    entry["former_driver"] = device.former_driver;
    entry["rom_file"] = device.guest.rom_file;
    entry["hide_hypervisor"] = device.guest.hide_hypervisor;
    json["devices"].push_back(std::move(entry));
  }
  return write_durably(file, json.dump(2) + "\n", kOperation, 0644);
}

/// The one notion of being the same device: that of find_device, which also knows cards that were moved.
bool is_at(const RememberedDevice& device, std::span<const PciDeviceInfo> functions, PciAddress address) {
  const auto found = find_device(device.identity, functions);
  return found && *found == address;
}

/// What people mean by an address: the device that is there now, else one that is nowhere any more and was there last.
auto known_by(PciAddress address, std::span<const RememberedDevice> devices, std::span<const PciDeviceInfo> functions) {
  const bool here =
      std::ranges::any_of(devices, [&](const RememberedDevice& known) { return is_at(known, functions, address); });
  return [=](const RememberedDevice& known) {
    return here ? is_at(known, functions, address)
                : known.identity.address == address && !find_device(known.identity, functions);
  };
}

}  // namespace

nlohmann::ordered_json identity_json(const DeviceIdentity& identity) {
  nlohmann::ordered_json json{{"address", identity.address.to_string()},
                              {"topology", identity.topology},
                              {"vendor", identity.vendor},
                              {"device", identity.device},
                              {"subsystem_vendor", identity.subsystem_vendor},
                              {"subsystem_device", identity.subsystem_device}};
  if (identity.serial_number) json["serial_number"] = fmt::format("{:016x}", *identity.serial_number);
  if (identity.acpi_index) json["acpi_index"] = *identity.acpi_index;
  return json;
}

std::optional<DeviceIdentity> read_identity(const nlohmann::json& json) {
  const auto text_at = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  const auto number_at = [&](const char* key) -> std::optional<std::uint32_t> {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number_unsigned()) return std::nullopt;
    return found->get<std::uint32_t>();
  };
  const auto id_at = [&](const char* key) { return static_cast<std::uint16_t>(number_at(key).value_or(0)); };
  if (!json.is_object()) return std::nullopt;
  const auto address = PciAddress::parse(text_at("address"));
  if (!address) return std::nullopt;
  return DeviceIdentity{*address,
                        text_at("topology"),
                        id_at("vendor"),
                        id_at("device"),
                        id_at("subsystem_vendor"),
                        id_at("subsystem_device"),
                        text::number(text_at("serial_number"), 16),
                        number_at("acpi_index")};
}

Result<nlohmann::json> read_boot_file(const std::filesystem::path& file) {
  const auto content = read_kernel_file(file);
  if (!content) {
    if (content.error().code() == ErrorCode::NotFound) return nlohmann::json();
    return fail(content.error());
  }
  auto json = nlohmann::json::parse(*content, nullptr, false);
  if (!json.is_object() || json.value("version", nlohmann::json()) != kBootFileVersion) {
    return fail(VmError(ErrorCode::Corrupt, "read", file.string(), "it is not a file of this tool")
                    .with_hint("remove it, and store what is wanted again"));
  }
  return json;
}

Result<std::vector<RememberedDevice>> PassthroughManager::remembered() const {
  const auto json = read_boot_file(file_of(options_));
  if (!json) return fail(json.error());
  std::vector<RememberedDevice> devices;
  if (!json->is_object() || !json->contains("devices") || !(*json)["devices"].is_array()) return devices;
  for (const auto& entry : (*json)["devices"]) {
    auto identity = read_identity(entry);
    const auto driver = entry.is_object() ? entry.value("former_driver", nlohmann::json()) : nlohmann::json();
    if (!identity || !driver.is_string() || driver.get<std::string>().find('/') != std::string::npos)
      return fail(ErrorCode::Corrupt, "read", file_of(options_).string(), "it is not a file of this tool");
    const auto rom = entry.value("rom_file", nlohmann::json());
    devices.push_back({std::move(*identity),
                       entry.value("requested", nlohmann::json(true)) == true,
                       driver.get<std::string>(),
                       {rom.is_string() ? rom.get<std::string>() : "",
                        entry.value("hide_hypervisor", nlohmann::json(false)) == true}});
  }
  return devices;
}

Result<void> PassthroughManager::remember(const PassthroughPlan& plan) {
  auto devices = remembered();
  if (!devices) return fail(devices.error());
  const auto sets = status();
  if (!sets) return fail(sets.error());
  const auto functions = scan_pci(options_.sysfs);
  if (!functions) return fail(functions.error());
  for (const PassthroughDevice& device : plan.devices) {
    RememberedDevice entry{identify(device.info), device.requested, device.give_back_to, device.guest};
    // One that was taken before this plan was made is on vfio-pci already: the journal knows what it had.
    for (const TakenSet& set : *sets)
      for (const TakenDevice& taken : set.devices)
        if (taken.address == device.info.address && !set.stale) entry.former_driver = taken.former_driver;
    std::erase_if(*devices,
                  [&](const RememberedDevice& known) { return is_at(known, *functions, device.info.address); });
    devices->push_back(std::move(entry));
  }
  return save(*devices, file_of(options_));
}

Result<bool> PassthroughManager::remembers(PciAddress address) const {
  const auto devices = remembered();
  if (!devices) return fail(devices.error());
  const auto functions = scan_pci(options_.sysfs);
  if (!functions) return fail(functions.error());
  return std::ranges::any_of(*devices, known_by(address, *devices, *functions));
}

Result<bool> PassthroughManager::forget(PciAddress address) {
  auto devices = remembered();
  if (!devices) return fail(devices.error());
  const auto functions = scan_pci(options_.sysfs);
  if (!functions) return fail(functions.error());
  const auto known = known_by(address, *devices, *functions);
  if (std::erase_if(*devices, known) == 0) return false;
  // Those that came along with it have nobody to come along with any more.
  if (std::ranges::none_of(*devices, &RememberedDevice::requested)) devices->clear();
  if (auto saved = save(*devices, file_of(options_)); !saved) return fail(saved.error());
  return true;
}

Result<std::vector<RestoreOutcome>> PassthroughManager::restore(std::chrono::milliseconds wait) {
  const auto devices = remembered();
  if (!devices) return fail(devices.error());
  std::vector<RestoreOutcome> outcomes;
  if (devices->empty()) return outcomes;
  if (const auto recovered = recover(); !recovered) return fail(recovered.error());  // forgets sets of the last boot
  const auto deadline = std::chrono::steady_clock::now() + wait;
  for (const RememberedDevice& device : *devices) {
    if (!device.requested) continue;
    RestoreOutcome outcome{device, std::nullopt, std::nullopt};
    std::vector<PciDeviceInfo> functions;
    const auto found = retry_until(deadline, [&]() -> Result<PciAddress> {
      auto scanned = scan_pci(options_.sysfs);
      if (!scanned) return fail(scanned.error());
      functions = std::move(*scanned);
      return find_device(device.identity, functions);
    });
    if (found)
      outcome.address = *found;
    else
      outcome.error = found.error();
    if (outcome.address) {
      TakeOptions take_options;
      take_options.guest = device.guest;
      auto plan = this->plan({&*outcome.address, 1}, take_options);
      if (plan) {
        for (PassthroughDevice& moving : plan->devices)
          for (const RememberedDevice& known : *devices)
            if (moving.give_back_to.empty() && is_at(known, functions, moving.info.address))
              moving.give_back_to = known.former_driver;
        if (auto taken = take(*plan); !taken) outcome.error = taken.error();
      } else {
        outcome.error = plan.error();
      }
    }
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

}  // namespace vm_platform
