// Kernel images for tests: small, right in every field, and easy to break in one.
#pragma once

#include <string_view>
#include <vector>

#include "boot/load_plan.hpp"

namespace vm_platform::boot::test {

/// A guest of 64 MiB as the machine describes it.
inline std::vector<BootMemoryRange> small_map() {
  using Type = BootMemoryRange::Type;
  return {{Gpa(0), 0x9f000, Type::Ram},
          {Gpa(0x9f000), 0x61000, Type::Reserved},
          {Gpa(kMiB), 62 * kMiB, Type::Ram},
          {Gpa(63 * kMiB), kMiB, Type::AcpiReclaimable}};
}

/// A bzImage with one setup sector and `payload` bytes of 0x90.
inline std::vector<std::byte> bz_image(std::size_t payload = 4096) {
  std::vector<std::byte> image(2 * 512 + payload, std::byte{0x90});
  std::fill(image.begin(), image.begin() + 1024, std::byte{0});
  put<std::uint8_t>(image, 0x1f1, 1);
  put<std::uint32_t>(image, 0x1f4, static_cast<std::uint32_t>((payload + 15) / 16));
  put<std::uint16_t>(image, 0x1fe, 0xaa55);
  put<std::uint16_t>(image, 0x200, 0x66eb);
  put<std::uint32_t>(image, 0x202, 0x53726448);
  put<std::uint16_t>(image, 0x206, 0x020f);
  put<std::uint16_t>(image, 0x20e, 0x100);  // the version string at 0x300
  put<std::uint8_t>(image, 0x211, 1);
  put<std::uint32_t>(image, 0x22c, 0x7fffffff);
  put<std::uint16_t>(image, 0x236, 1);
  put<std::uint32_t>(image, 0x238, 2047);
  put<std::uint64_t>(image, 0x258, 16 * kMiB);
  put<std::uint32_t>(image, 0x260, 2 * kMiB);
  constexpr std::string_view kVersion = "6.1.0-test";
  for (std::size_t i = 0; i < kVersion.size(); ++i) image[0x300 + i] = static_cast<std::byte>(kVersion[i]);
  return image;
}

struct ElfOptions {
  bool is_64 = true;
  std::uint64_t address = 2 * kMiB, memory_size = 8192, entry = 2 * kMiB;
  bool pvh_note = true;
  bool multiboot = false;
};
/// A header, two program headers (one to load, one note), the note, 4 KiB of 0x90 at file offset 4096.
inline std::vector<std::byte> elf(const ElfOptions& options = {}) {
  std::vector<std::byte> image(8192, std::byte{0x90});
  std::fill(image.begin(), image.begin() + 4096, std::byte{0});
  const bool wide = options.is_64;
  put<std::uint32_t>(image, 0, 0x464c457f);
  put<std::uint8_t>(image, 4, wide ? 2 : 1);
  put<std::uint8_t>(image, 5, 1);
  put<std::uint16_t>(image, 16, 2);
  put<std::uint16_t>(image, 18, wide ? 62 : 3);
  const std::size_t table = 64, size = wide ? 56 : 32;
  if (wide) {
    put<std::uint64_t>(image, 24, options.entry);
    put<std::uint64_t>(image, 32, table);
  } else {
    put<std::uint32_t>(image, 24, static_cast<std::uint32_t>(options.entry));
    put<std::uint32_t>(image, 28, table);
  }
  put<std::uint16_t>(image, wide ? 54 : 42, static_cast<std::uint16_t>(size));
  put<std::uint16_t>(image, wide ? 56 : 44, 2);
  const auto segment = [&](std::size_t index, std::uint32_t type, std::uint64_t offset, std::uint64_t address,
                           std::uint64_t file_size, std::uint64_t memory_size) {
    const std::size_t at = table + index * size;
    put(image, at, type);
    if (wide) {
      put(image, at + 8, offset);
      put(image, at + 16, address);
      put(image, at + 24, address);
      put(image, at + 32, file_size);
      put(image, at + 40, memory_size);
    } else {
      put(image, at + 4, static_cast<std::uint32_t>(offset));
      put(image, at + 8, static_cast<std::uint32_t>(address));
      put(image, at + 12, static_cast<std::uint32_t>(address));
      put(image, at + 16, static_cast<std::uint32_t>(file_size));
      put(image, at + 20, static_cast<std::uint32_t>(memory_size));
    }
  };
  segment(0, 1, 4096, options.address, 4096, options.memory_size);
  segment(1, options.pvh_note ? 4 : 0, 512, 0, 20, 20);
  put<std::uint32_t>(image, 512, 4);
  put<std::uint32_t>(image, 516, 4);
  put<std::uint32_t>(image, 520, 18);
  put<std::uint32_t>(image, 524, 0x006e6558);  // "Xen"
  put<std::uint32_t>(image, 528, static_cast<std::uint32_t>(options.entry));
  if (options.multiboot) {
    put<std::uint32_t>(image, 1024, 0x1badb002);
    put<std::uint32_t>(image, 1028, 3);
    put<std::uint32_t>(image, 1032, 0U - 0x1badb002 - 3);
  }
  return image;
}

/// A Multiboot kernel that says itself where it goes: header at 64 in the file, loaded at 1 MiB.
inline std::vector<std::byte> multiboot_flat() {
  std::vector<std::byte> image(4096, std::byte{0x90});
  const std::uint32_t flags = 0x10003, base = kMiB;
  const std::uint32_t words[] = {0x1badb002,  flags,    0U - 0x1badb002 - flags, base + 64, base, base + 4096,
                                 base + 8192, base + 96};
  for (std::size_t i = 0; i < 8; ++i) put(image, 64 + 4 * i, words[i]);
  return image;
}

}  // namespace vm_platform::boot::test
