#include "passthrough/host_changes.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vm_platform/gpu.hpp>
#include <vm_platform/vga_arbiter.hpp>

#include "passthrough/boot_framebuffer.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

/// "1:268435456" as BAR and bytes.
std::optional<std::pair<std::uint8_t, std::uint64_t>> parse_bar_size(std::string_view text) {
  const auto bar = text::number<std::uint8_t>(text::take(text, ':'));
  const auto bytes = text::number(text);
  if (!bar || !bytes || *bar > 5) return std::nullopt;
  return std::pair(*bar, *bytes);
}

Result<void> set_vga(PciAddress device, VgaResource resources, const std::filesystem::path& root) {
  auto arbiter = VgaArbiter::open(root / "dev/vga_arbiter");
  if (!arbiter) return fail(arbiter.error());
  return arbiter->set_decodes(device, resources);
}

}  // namespace

std::string bar_size_text(std::uint8_t bar, std::uint64_t bytes) { return fmt::format("{}:{}", bar, bytes); }

HostChanges::HostChanges(const PassthroughOptions& options)
    : sysfs_(options.sysfs), root_(options.root), binding_(options.sysfs, options.root, options.unbind_timeout) {}

bool HostChanges::same_hardware(const TakenDevice& taken) const {
  // From these two files alone: most others have whoever reads them wait while a driver lets go of the device.
  const auto is = [&](const char* file, std::uint16_t id) {
    const auto now = read_kernel_file(sysfs_ / "bus/pci/devices" / taken.address.to_string() / file);
    return now && now->starts_with("0x") && text::number(text::trim(*now).substr(2), 16) == id;
  };
  return is("vendor", taken.vendor) && is("device", taken.device);
}

TakenDevice HostChanges::record(const PassthroughDevice& device, std::span<const PlanStep> steps) const {
  const PciDeviceInfo& info = device.info;
  TakenDevice taken{info.address,     device.give_back_to, info.driver_override,
                    info.device_path, info.vendor,         info.device};
  taken.guest = device.guest;
  for (const PlanStep& step : steps) {
    if (step.kind == PlanStep::Kind::ReleaseConsole) {
      // A console belongs to the display that it is released for.
      if (step.device == info.address) taken.display.consoles.push_back(step.argument);
      continue;
    }
    if (step.device != info.address) continue;
    if (step.kind == PlanStep::Kind::ReleaseFramebuffer) {
      taken.display.framebuffer = step.argument;
      const auto driver = link_name(sysfs_ / "bus/platform/devices" / step.argument / "driver");
      taken.display.framebuffer_driver = driver.value_or("");
    }
    if (step.kind == PlanStep::Kind::SetResetMethods)
      taken.former_reset_methods = fmt::format("{}", fmt::join(info.reset_methods, " "));
    if (step.kind == PlanStep::Kind::YieldVga) taken.display.vga_decodes = step.argument;
    if (step.kind == PlanStep::Kind::ResizeBar) {
      const auto wanted = parse_bar_size(step.argument);
      const auto bar = std::ranges::find(info.bars, wanted ? wanted->first : 0xff, &PciBar::index);
      if (bar != info.bars.end())
        taken.former_bar_sizes += (taken.former_bar_sizes.empty() ? "" : " ") + bar_size_text(bar->index, bar->size);
    }
  }
  return taken;
}

Result<void> HostChanges::run(const PlanStep& step) const {
  switch (step.kind) {
    case PlanStep::Kind::LoadModule:
      if (auto loaded = binding_.load_module(step.argument); !loaded) return loaded;
      if (!binding_.driver_present("vfio-pci")) {
        return fail(VmError(ErrorCode::Unsupported, "load module", step.argument, "its driver did not appear")
                        .with_detail(PassthroughError::NoVfio));
      }
      return {};
    case PlanStep::Kind::ReleaseConsole: return bind_console(step.argument, false, sysfs_);
    case PlanStep::Kind::ReleaseFramebuffer: {
      const auto driver = link_name(sysfs_ / "bus/platform/devices" / step.argument / "driver");
      return driver ? unbind_framebuffer(step.argument, *driver, sysfs_) : Result<void>{};
    }
    case PlanStep::Kind::SetOverride: return binding_.set_override(step.device, step.argument);
    case PlanStep::Kind::Unbind: return binding_.unbind(step.device);
    case PlanStep::Kind::SetResetMethods: return set_reset_methods(step.device, step.argument);
    case PlanStep::Kind::ResizeBar: {
      const auto wanted = parse_bar_size(step.argument);
      if (!wanted) return fail(ErrorCode::InvalidArgument, "resize BAR of", step.device.to_string(), step.argument);
      return resize_bar(step.device, wanted->first, wanted->second, sysfs_);
    }
    case PlanStep::Kind::YieldVga: return set_vga(step.device, VgaResource::None, root_);
    case PlanStep::Kind::Bind: return binding_.bind(step.device, step.argument);
  }
  return {};
}

Result<void> HostChanges::set_reset_methods(PciAddress device, const std::string& methods) const {
  const auto file = sysfs_ / "bus/pci/devices" / device.to_string() / "reset_method";
  if (auto set = write_kernel_file(file, methods, "set the reset methods of " + device.to_string()); !set) return set;
  const auto now = read_kernel_file(file);
  if (!now) return fail(now.error());
  if (text::trim(*now) != methods) {
    return fail(VmError(ErrorCode::Io, "set the reset methods of", device.to_string(),
                        fmt::format("'{}' asked for, '{}' found", methods, text::trim(*now)))
                    .with_detail(PassthroughError::KernelIgnored));
  }
  return {};
}

Result<void> HostChanges::put_back(const TakenDevice& device) const {
  const PciAddress address = device.address;
  if (!binding_.present(address)) return {};  // it is gone: nothing to put back
  if (auto set = binding_.set_override(address, device.former_override); !set) return set;
  if (binding_.driver(address) != device.former_driver) {
    if (auto unbound = binding_.unbind(address); !unbound) return unbound;
  }
  if (binding_.driver(address).empty()) {
    std::string_view sizes = device.former_bar_sizes;
    while (!sizes.empty()) {
      const auto former = parse_bar_size(text::take(sizes, ' '));
      if (!former) continue;
      if (auto resized = resize_bar(address, former->first, former->second, sysfs_); !resized) return resized;
    }
    // With a driver, that driver decides; without one, what was before is put back.
    const bool undecided = device.former_driver.empty() && !device.display.vga_decodes.empty();
    for (const VgaResource resource : {VgaResource::Io, VgaResource::Memory, VgaResource::Both}) {
      if (!undecided || device.display.vga_decodes != to_string(resource)) continue;
      if (auto set = set_vga(address, resource, root_); !set) return set;
    }
  }
  if (!device.former_reset_methods.empty()) {
    if (auto set = set_reset_methods(address, device.former_reset_methods); !set) return set;
  }
  if (!device.former_driver.empty() && binding_.driver(address) != device.former_driver) {
    if (!binding_.driver_present(device.former_driver)) {
      if (auto loaded = binding_.load_module(device.former_driver); !loaded) return loaded;
    }
    if (auto bound = binding_.bind(address, device.former_driver); !bound) return bound;
  }
  return put_back_display(device.display);
}

Result<void> HostChanges::put_back_display(const FormerDisplay& display) const {
  if (!display.framebuffer.empty()) {
    if (auto bound = rebind_framebuffer(display.framebuffer, display.framebuffer_driver, sysfs_); !bound) return bound;
  }
  for (const std::string& console : display.consoles) {
    std::error_code ignored;
    // Without a framebuffer to draw on the kernel has no such console to bind.
    if (!std::filesystem::exists(sysfs_ / "class/vtconsole" / console, ignored)) continue;
    if (auto bound = bind_console(console, true, sysfs_); !bound) return bound;
  }
  return {};
}

}  // namespace vm_platform
