#include "passthrough/binding.hpp"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <future>
#include <thread>
#include <vm_platform/passthrough.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {

std::string DriverBinding::driver(PciAddress device) const { return link_name(path(device) / "driver").value_or(""); }

bool DriverBinding::present(PciAddress device) const {
  std::error_code ignored;
  return std::filesystem::exists(path(device), ignored);
}

bool DriverBinding::driver_present(const std::string& driver) const {
  std::error_code ignored;
  return std::filesystem::exists(sysfs_ / "bus/pci/drivers" / driver, ignored);
}

Result<void> DriverBinding::set_override(PciAddress device, const std::string& driver) const {
  const auto file = path(device) / "driver_override";
  // A newline alone clears it; an empty write would not reach the kernel.
  auto written = write_kernel_file(file, driver + "\n", "set driver_override of " + device.to_string());
  if (!written) return written;
  const auto now = read_kernel_file(file);
  if (!now) return fail(now.error());
  const std::string_view value = text::trim(*now);
  if (value != driver && !(driver.empty() && value == "(null)")) {
    return fail(VmError(ErrorCode::Io, "set driver_override of", device.to_string(),
                        fmt::format("'{}' asked for, '{}' found", driver, value))
                    .with_detail(PassthroughError::KernelIgnored));
  }
  return {};
}

Result<void> DriverBinding::unbind(PciAddress device) const {
  const std::string name = device.to_string(), former = driver(device);
  if (former.empty()) return {};
  // The write blocks until the driver lets go, which can be never: a thread of its own waits for it, and is left behind
  // (inside the kernel) where it does not come back.
  std::promise<Result<void>> promise;
  auto unbound = promise.get_future();
  std::thread([promise = std::move(promise), file = path(device) / "driver/unbind", name]() mutable {
    promise.set_value(write_kernel_file(file, name, "unbind " + name));
  }).detach();
  if (unbound.wait_for(unbind_timeout_) != std::future_status::ready) {
    auto info = read_pci_device(device, sysfs_);
    std::string holders;
    if (info)
      for (const DeviceUse& use : find_uses(*info, sysfs_, root_)) holders += (holders.empty() ? "" : "; ") + use.what;
    return fail(VmError(ErrorCode::Timeout, "unbind", name,
                        fmt::format("{} did not let go within {} ms", former, unbind_timeout_.count()))
                    .with_hint(holders.empty() ? "something in the kernel still uses it: see `dmesg`" : holders));
  }
  if (auto written = unbound.get(); !written) return written;
  if (const std::string now = driver(device); !now.empty()) {
    return fail(
        VmError(ErrorCode::Io, "unbind", name, now + " is still bound").with_detail(PassthroughError::KernelIgnored));
  }
  return {};
}

Result<void> DriverBinding::bind(PciAddress device, const std::string& driver_name) const {
  const std::string name = device.to_string();
  if (driver(device) == driver_name) return {};
  auto probed = write_kernel_file(sysfs_ / "bus/pci/drivers_probe", name, "bind " + name);
  if (probed && driver(device) == driver_name) return {};
  // drivers_probe says yes also where nothing was bound; asking the driver itself tells why.
  auto bound = write_kernel_file(sysfs_ / "bus/pci/drivers" / driver_name / "bind", name,
                                 fmt::format("bind {} to {}", name, driver_name));
  if (driver(device) == driver_name) return {};
  if (!bound) return bound;
  const std::string now = driver(device);
  return fail(VmError(ErrorCode::Io, "bind", name + " to " + driver_name,
                      now.empty() ? "the kernel accepted it and bound nothing" : now + " was bound instead")
                  .with_detail(PassthroughError::KernelIgnored));
}

Result<void> DriverBinding::load_module(const std::string& module) const {
  const std::string quiet = "-q";
  std::string program = "modprobe", name = module, separator = "--", option = quiet;
  char* arguments[] = {program.data(), option.data(), separator.data(), name.data(), nullptr};
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, "modprobe", nullptr, nullptr, arguments, environ);
  if (error != 0) return fail(VmError::from_os(error, "run modprobe for", module));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return fail(VmError(ErrorCode::Unsupported, "load module", module, "modprobe failed")
                    .with_detail(PassthroughError::NoVfio)
                    .with_hint("`modprobe " + module + "` says why; the kernel may lack it"));
  }
  return {};
}

}  // namespace vm_platform
