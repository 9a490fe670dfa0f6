#include "boot/detect.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "boot/elf.hpp"
#include "boot/linux.hpp"
#include "boot/multiboot.hpp"
#include "boot/pvh.hpp"

namespace vm_platform::boot {
namespace {

/// A word on files that people take for a kernel.
std::string describe(const ByteSource& kernel) {
  std::array<std::byte, 64> start{};
  const std::size_t size = std::min<std::size_t>(kernel.size(), start.size());
  if (!kernel.read(0, std::span(start).first(size))) return "unreadable";
  const auto has = [&](std::size_t at, std::string_view text) {
    return at + text.size() <= size && std::memcmp(start.data() + at, text.data(), text.size()) == 0;
  };
  if (has(56, "ARM\x64")) return "a Linux kernel for AArch64";
  if (has(0,
          "\x7f"
          "ELF"))
    return "an ELF file without a PVH note or a Multiboot header";
  if (has(0, "\x1f\x8b")) return "a gzip file";
  if (has(0,
          "\xfd"
          "7zXZ"))
    return "an xz file";
  if (has(0, "\x28\xb5\x2f\xfd")) return "a zstd file";
  if (has(0, "070701") || has(0, "070702")) return "a cpio archive (an initramfs?)";
  if (has(0, "!<arch>\ndebian")) return "a Debian package";
  if (has(0, "MZ")) return "an EFI program without a Linux setup header";
  if (has(0, "#!")) return "a script";
  return "neither a Linux bzImage, an ELF with a PVH note, nor a Multiboot kernel";
}

}  // namespace

Result<Boot> plan(BootMethod method, const BootInput& input) {
  const ByteSource& kernel = *input.kernel;
  switch (method) {
    case BootMethod::Linux: return plan_linux(input);
    case BootMethod::Pvh: return plan_pvh(input);
    case BootMethod::Multiboot: return plan_multiboot(input);
    case BootMethod::Auto: break;
  }
  if (is_linux(kernel)) return plan_linux(input);
  if (is_pvh(kernel)) return plan_pvh(input);
  if (is_multiboot(kernel)) return plan_multiboot(input);
  if (is_elf(kernel)) {  // for another architecture, or damaged: that is the better message
    if (auto image = read_elf(kernel); !image) return fail(image.error());
  }
  return fail(VmError(ErrorCode::Corrupt, "load kernel", kernel.name(), "not a kernel: it is " + describe(kernel))
                  .with_hint("give an x86-64 kernel image, such as /boot/vmlinuz-…"));
}

}  // namespace vm_platform::boot
