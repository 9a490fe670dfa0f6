#include "passthrough/binding.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vm_platform/passthrough.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

/// Writes to a kernel file in a process of its own, which is left behind where the kernel does not come back in time:
/// whoever makes such a call cannot give it up, nor even be killed. Nothing: the time is up.
std::optional<Result<void>> write_within(std::chrono::milliseconds limit, const std::filesystem::path& path,
                                         const std::string& text, std::string operation) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail(VmError::from_os(errno, std::move(operation), "pipe"));
  const Descriptor from(ends[0]);
  Descriptor to(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    // Only calls that are safe after a fork. A grandchild, so that nobody has to wait for it; it holds nothing that
    // others would wait for (the journal's lock, a pipe to the caller), and no key on a terminal reaches it.
    if (::_Fork() != 0) ::_exit(0);
    ::setsid();
    constexpr int kAnswer = 3;  // behind the standard ones, which must not become the kernel's file
    if (::dup2(to.get(), kAnswer) < 0) ::_exit(1);
    const int null = ::open("/dev/null", O_RDWR);
    for (int standard = 0; standard < kAnswer; ++standard)
      if (null < 0 || ::dup2(null, standard) < 0) ::_exit(1);
    ::close_range(kAnswer + 1, ~0U, 0);
    const int file = ::open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
    const int error = file < 0 || ::write(file, text.data(), text.size()) < 0 ? errno : 0;
    ::_exit(::write(kAnswer, &error, sizeof error) < 0 ? 1 : 0);
  }
  if (child < 0) return fail(VmError::from_os(errno, std::move(operation), "fork"));
  to = Descriptor();
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd wait{from.get(), POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready > 0) break;
    if (ready == 0) return std::nullopt;
  }
  int error = EIO;  // where the process died
  if (::read(from.get(), &error, sizeof error) != sizeof error) error = EIO;
  if (error == 0) return Result<void>{};
  return fail(VmError::from_os(error, std::move(operation),
                               fmt::format("by writing '{}' to {}", text::trim(text), path.string())));
}

}  // namespace

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
  const std::string operation = "set driver_override of " + device.to_string();
  // A newline alone clears it; an empty write would not reach the kernel.
  const auto written = write_within(unbind_timeout_, file, driver + "\n", operation);
  if (!written) {
    return fail(VmError(ErrorCode::Timeout, "set driver_override of", device.to_string(),
                        fmt::format("the kernel did not do it within {} ms: a driver is still letting go of the device",
                                    unbind_timeout_.count())));
  }
  if (!*written) return *written;
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
  // Asked before, because afterwards most of what could be asked waits for the driver, too.
  const auto info = read_pci_device(device, sysfs_);
  const auto uses = info ? find_uses(*info, sysfs_, root_) : std::vector<DeviceUse>{};
  const auto unbound = write_within(unbind_timeout_, path(device) / "driver/unbind", name, "unbind " + name);
  if (!unbound) {
    std::string reason = fmt::format("{} did not let go within {} ms", former, unbind_timeout_.count());
    for (const DeviceUse& use : uses) reason += "; " + use.what;
    for (const NodeHolder& holder : find_holders(vfio_nodes(device, sysfs_), root_))
      reason += fmt::format("; {} (pid {}) has {} open", holder.command, holder.pid, holder.node);
    if (uses.empty()) reason += "; `dmesg` may say what it waits for";
    return fail(VmError(ErrorCode::Timeout, "unbind", name, reason));
  }
  if (!*unbound) return *unbound;
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
