// An SR-IOV file that is applied at every boot, to the devices it meant when it was stored.
#pragma once

#include <chrono>
#include <filesystem>
#include <string_view>
#include <vector>
#include <vm_platform/sriov.hpp>

namespace vm_platform {

/// Keeps the text of a file (as `parse_sriov_file` reads it) together with what its devices are, in `config`. What was
/// stored before is replaced. Every device has to be there now.
Result<void> store_sriov(std::string_view text, const std::filesystem::path& sysfs = "/sys",
                         const std::filesystem::path& config = "/etc/vm-platform");
/// The declarations that are stored, with each device named as it is named now; empty where nothing is stored. Waits
/// for up to `wait` until all devices are there with a driver (where they are to have functions) and a network
/// interface (where functions are to be set up); `NotFound` names what is missing then.
[[nodiscard]] Result<std::vector<SriovDeclaration>> stored_sriov(
    std::chrono::milliseconds wait = {}, const std::filesystem::path& sysfs = "/sys",
    const std::filesystem::path& config = "/etc/vm-platform");
/// Ends that. Virtual functions stay as they are.
Result<void> forget_sriov(const std::filesystem::path& config = "/etc/vm-platform");

}  // namespace vm_platform
