// SimpleBootManager: opens the files, chooses the loader, runs it.
#include <array>
#include <cstring>
#include <utility>
#include <vm_platform/boot.hpp>

#include "boot/detect.hpp"
#include "guest/guest_memory.hpp"

namespace vm_platform {

std::string_view to_string(BootMethod method) noexcept {
  switch (method) {
    case BootMethod::Auto: return "auto";
    case BootMethod::Linux: return "linux";
    case BootMethod::Pvh: return "pvh";
    case BootMethod::Multiboot: return "multiboot";
  }
  return "unknown";
}

struct SimpleBootManager::Files {
  boot::FileSource kernel;
  std::vector<boot::FileSource> modules;
};

SimpleBootManager::SimpleBootManager(BootConfig config, std::unique_ptr<Files> files)
    : config_(std::move(config)), files_(std::move(files)) {}
SimpleBootManager::~SimpleBootManager() = default;

Result<std::unique_ptr<SimpleBootManager>> SimpleBootManager::open(BootConfig config) {
  auto kernel = boot::FileSource::open(config.kernel, "kernel");
  if (!kernel) return fail(kernel.error());
  auto files = std::make_unique<Files>(std::move(*kernel));
  for (const BootModule& module : config.modules) {
    auto source = boot::FileSource::open(module.path, "initrd");
    if (!source) return fail(source.error());
    files->modules.push_back(std::move(*source));
  }
  return std::unique_ptr<SimpleBootManager>(new SimpleBootManager(std::move(config), std::move(files)));
}

Result<void> SimpleBootManager::load(const BootMachine& machine, CpuState& cpu) {
  boot::BootInput input{.kernel = &files_->kernel,
                        .command_line = config_.command_line,
                        .memory_map = machine.memory_map,
                        .rsdp = machine.rsdp};
  for (std::size_t i = 0; i < files_->modules.size(); ++i)
    input.modules.push_back({&files_->modules[i], config_.modules[i].command_line});
  auto planned = boot::plan(config_.method, input);
  if (!planned) return fail(planned.error());
  if (auto written = planned->plan.write(*machine.memory); !written) return written;
  planned->set_cpu(cpu);
  status_ = {true, planned->method, planned->kernel_version, planned->entry, planned->plan.placed()};
  return {};
}

const BootStatus& SimpleBootManager::status() const noexcept { return status_; }

}  // namespace vm_platform
