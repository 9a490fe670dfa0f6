// The files in /etc/vm-platform that say what is to be done at every boot.
#pragma once

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>
#include <vm_platform/device_identity.hpp>

namespace vm_platform {

[[nodiscard]] nlohmann::ordered_json identity_json(const DeviceIdentity& identity);
/// Nothing where it is not one.
[[nodiscard]] std::optional<DeviceIdentity> read_identity(const nlohmann::json& json);

/// The document in a file; null where there is none, `Corrupt` where it is not JSON of this version.
[[nodiscard]] Result<nlohmann::json> read_boot_file(const std::filesystem::path& file);
inline constexpr int kBootFileVersion = 1;

/// Devices show up one by one while a host boots: tries five times a second until it works or the time is over.
template <typename Attempt>
[[nodiscard]] auto retry_until(std::chrono::steady_clock::time_point deadline, const Attempt& attempt) {
  for (;;) {
    auto result = attempt();
    if (result || std::chrono::steady_clock::now() >= deadline) return result;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

}  // namespace vm_platform
