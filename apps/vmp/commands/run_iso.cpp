#include "apps/vmp/commands/run_iso.hpp"

#include <unistd.h>

#include <cstring>
#include <span>
#include <vm_platform/iso_boot.hpp>

namespace vm_platform::vmp {
namespace {

/// The bytes as a file with a path, which is how loaders take them; nothing is written to a disk.
Result<std::string> hold(IsoBoot& boot, const char* name, std::span<const std::byte> bytes, std::string called) {
  auto memory = MappedMemory::create_shared(bytes.empty() ? 1 : bytes.size(), name);
  if (!memory) return fail(memory.error());
  std::memcpy(memory->data(), bytes.data(), bytes.size());
  if (::ftruncate(memory->descriptor(), static_cast<off_t>(bytes.size())) != 0)
    return fail(VmError::from_os(errno, "size", name));
  const std::string path = "/proc/self/fd/" + std::to_string(memory->descriptor());
  boot.files.push_back(std::move(*memory));
  boot.names.emplace_back(path, std::move(called));
  return path;
}

std::string replace_path(std::string text, const std::string& path, const std::string& name) {
  for (std::size_t at = 0; (at = text.find(path, at)) != std::string::npos;) {
    const std::size_t end = at + path.size();
    const bool whole = end == text.size() || text[end] < '0' || text[end] > '9';  // the path ends with a number
    if (whole) text.replace(at, path.size(), name);
    at += whole ? name.size() : path.size();
  }
  return text;
}

}  // namespace

VmError name_files(const IsoBoot& boot, const VmError& error) {
  std::string subject = error.subject(), reason = error.reason(), hint = error.hint();
  for (const auto& [path, name] : boot.names) {
    for (std::string* text : {&subject, &reason, &hint}) *text = replace_path(std::move(*text), path, name);
  }
  return VmError(error.code(), error.operation(), std::move(subject), std::move(reason))
      .with_hint(std::move(hint))
      .with_detail(error.detail());
}

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
  const std::string image = (chosen->container.empty() ? "" : chosen->container + " of ") + path;
  auto kernel = hold(boot, "iso-kernel", files->kernel, chosen->kernel + " of " + image);
  if (!kernel) return fail(kernel.error());
  boot.boot.kernel = *kernel;
  const auto add_module = [&](std::span<const std::byte> bytes, const std::string& name) -> Result<void> {
    auto module = hold(boot, "iso-initrd", bytes, name + " of " + image);
    if (!module) return fail(module.error());
    boot.boot.modules.push_back({*module});
    return {};
  };
  if (!files->initramfs.empty()) {
    std::string all;  // several are one to the kernel
    for (const std::string& initrd : chosen->initrds) all += (all.empty() ? "" : " and ") + initrd;
    if (auto added = add_module(files->initramfs, all); !added) return fail(added.error());
  }
  for (std::size_t i = 0; i < files->modules.size(); ++i) {
    if (auto added = add_module(files->modules[i], chosen->initrds[i]); !added) return fail(added.error());
  }
  return boot;
}

}  // namespace vm_platform::vmp
