#include "apps/vmp/commands/run_iso.hpp"

#include <unistd.h>

#include <cstring>
#include <span>
#include <vm_platform/iso_boot.hpp>

namespace vm_platform::vmp {
namespace {

/// The bytes as a file with a path, which is how loaders take them; nothing is written to a disk.
Result<std::string> hold(IsoBoot& boot, const char* name, std::span<const std::byte> bytes) {
  auto memory = MappedMemory::create_shared(bytes.empty() ? 1 : bytes.size(), name);
  if (!memory) return fail(memory.error());
  std::memcpy(memory->data(), bytes.data(), bytes.size());
  if (::ftruncate(memory->descriptor(), static_cast<off_t>(bytes.size())) != 0)
    return fail(VmError::from_os(errno, "size", name));
  const std::string path = "/proc/self/fd/" + std::to_string(memory->descriptor());
  boot.files.push_back(std::move(*memory));
  return path;
}

}  // namespace

Result<IsoBoot> open_iso_boot(const std::string& path, const std::string& entry, const std::string& append) {
  const auto iso = SimpleIso9660::open(path);
  if (!iso) return fail(iso.error());
  const auto entries = find_boot_entries(*iso);
  if (!entries) return fail(entries.error());
  const auto chosen = choose_boot_entry(*entries, entry);
  if (!chosen) return fail(chosen.error());
  const auto files = load_boot_entry(*iso, *chosen, append);
  if (!files) return fail(files.error());

  IsoBoot boot;
  boot.title = chosen->title;
  boot.console_added = files->console_added;
  boot.boot.command_line = files->command_line;
  boot.boot.method = chosen->protocol == IsoBootProtocol::Linux ? BootMethod::Linux : BootMethod::Multiboot;
  auto kernel = hold(boot, "iso-kernel", files->kernel);
  if (!kernel) return fail(kernel.error());
  boot.boot.kernel = *kernel;
  const auto add_module = [&](std::span<const std::byte> bytes) -> Result<void> {
    auto module = hold(boot, "iso-initrd", bytes);
    if (!module) return fail(module.error());
    boot.boot.modules.push_back({*module});
    return {};
  };
  if (!files->initramfs.empty()) {
    if (auto added = add_module(files->initramfs); !added) return fail(added.error());
  }
  for (const auto& module : files->modules) {
    if (auto added = add_module(module); !added) return fail(added.error());
  }
  return boot;
}

}  // namespace vm_platform::vmp
