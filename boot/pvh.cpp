#include "boot/pvh.hpp"

#include <cstring>
#include <string_view>

#include "boot/cpu_setup.hpp"
#include "boot/elf.hpp"

namespace vm_platform::boot {
namespace {

constexpr std::uint32_t kGuestOs = 6, kPhys32Entry = 18;  // XEN_ELFNOTE_GUEST_OS, XEN_ELFNOTE_PHYS32_ENTRY
constexpr std::uint32_t kMagic = 0x336ec578, kVersion = 1;
constexpr std::size_t kStartInfoSize = 56, kModuleSize = 32, kMapEntrySize = 24;
/// The start information and what it points at: the lowest free place that a kernel at 1 MiB does not reach.
constexpr Gpa kLowFloor(0x6000), kLowLimit(0x90000);

std::optional<std::uint64_t> entry_of(const ElfImage& image, const ByteSource& kernel) {
  const auto note = find_note(image, kernel, "Xen", kPhys32Entry);
  if (!note || note->size() < 4) return std::nullopt;
  return note->size() >= 8 ? get<std::uint64_t>(*note, 0) : get<std::uint32_t>(*note, 0);
}

bool is_for_linux(const ElfImage& image, const ByteSource& kernel) {
  const auto note = find_note(image, kernel, "Xen", kGuestOs);
  constexpr std::string_view kName = "linux";
  return note && note->size() >= kName.size() && std::memcmp(note->data(), kName.data(), kName.size()) == 0;
}

Result<Gpa> place_low(LoadPlan& plan, const char* what, std::vector<std::byte> bytes) {
  const auto address = plan.find(what, bytes.size(), kLowFloor, kLowLimit, LoadPlan::Search::Lowest);
  if (!address) return address;
  if (auto placed = plan.place(what, *address, std::move(bytes)); !placed) return fail(placed.error());
  return address;
}

/// The modules and their list. Linux takes the first alone, as its initramfs: for it all are one, end to end, each
/// archive on the 4-byte boundary where the kernel looks for the next.
Result<void> place_modules(const BootInput& input, bool as_one, LoadPlan& plan, std::span<std::byte> start) {
  if (input.modules.empty()) return {};
  struct Part {
    std::uint64_t offset = 0, size = 0;
  };
  std::vector<Part> parts;
  std::uint64_t total = 0;
  for (const auto& module : input.modules) {
    const std::uint64_t offset = round_up(total, as_one ? 4 : kPageSize);
    parts.push_back({offset, module.source->size()});
    total = offset + parts.back().size;
    if (total > 4 * kGiB)
      return fail(VmError(ErrorCode::InvalidArgument, "load module", module.source->name(), "larger than 4 GiB")
                      .with_hint("is this the right file?"));
  }
  // Below 4 GiB: Linux hands the address on as its 32-bit ramdisk address.
  const std::string what = parts.size() == 1 ? "module " + input.modules[0].source->name() : "modules";
  const auto base = plan.find(what, total, Gpa(kMiB), Gpa(4 * kGiB));
  if (!base) return fail(base.error());
  std::vector<std::byte> list((as_one ? 1 : parts.size()) * kModuleSize);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto& [source, text] = input.modules[i];
    const std::uint64_t taken = round_up(parts[i].size, as_one ? 4 : kPageSize);
    if (auto placed = plan.place("module", *base + parts[i].offset, taken, *source, 0, parts[i].size); !placed)
      return placed;
    if (as_one) continue;
    put(list, i * kModuleSize, base->value + parts[i].offset);
    put(list, i * kModuleSize + 8, parts[i].size);
    if (text.empty()) continue;
    const auto text_address = place_low(plan, "module command line", c_string(text));
    if (!text_address) return fail(text_address.error());
    put(list, i * kModuleSize + 16, text_address->value);
  }
  if (as_one) {
    put(list, 0, base->value);
    put(list, 8, total);
  }
  put(start, 12, static_cast<std::uint32_t>(list.size() / kModuleSize));
  const auto address = place_low(plan, "module list", std::move(list));
  if (!address) return fail(address.error());
  put(start, 16, address->value);
  return {};
}

}  // namespace

bool is_pvh(const ByteSource& kernel) {
  if (!is_elf(kernel)) return false;
  const auto image = read_elf(kernel);
  return image && entry_of(*image, kernel).has_value();
}

Result<Boot> plan_pvh(const BootInput& input) {
  const ByteSource& kernel = *input.kernel;
  auto image = read_elf(kernel);
  if (!image) return fail(image.error());
  const auto entry = entry_of(*image, kernel);
  if (!entry) {
    return fail(VmError(ErrorCode::Unsupported, "load kernel", kernel.name(), "an ELF file without a PVH entry note")
                    .with_hint("Linux has one when it is built with CONFIG_PVH=y"));
  }
  if (*entry > UINT32_MAX)
    return fail(ErrorCode::Corrupt, "load kernel", kernel.name(), "its PVH entry " + hex(*entry) + " is above 4 GiB");

  Boot boot{.plan = LoadPlan(input.memory_map), .method = BootMethod::Pvh, .entry = Gpa(*entry)};
  LoadPlan& plan = boot.plan;
  if (auto placed = place_segments(*image, kernel, plan); !placed) return fail(placed.error());

  std::vector<std::byte> start(kStartInfoSize);
  put(start, 0, kMagic);
  put(start, 4, kVersion);
  const auto command_line = place_low(plan, "command line", c_string(input.command_line));
  if (!command_line) return fail(command_line.error());
  put(start, 24, command_line->value);
  put(start, 32, input.rsdp.value);

  std::vector<std::byte> map(input.memory_map.size() * kMapEntrySize);
  for (std::size_t i = 0; i < input.memory_map.size(); ++i) {
    put(map, i * kMapEntrySize, input.memory_map[i].base.value);
    put(map, i * kMapEntrySize + 8, input.memory_map[i].size);
    put(map, i * kMapEntrySize + 16, static_cast<std::uint32_t>(input.memory_map[i].type));
  }
  const auto map_address = place_low(plan, "memory map", std::move(map));
  if (!map_address) return fail(map_address.error());
  put(start, 40, map_address->value);
  put(start, 48, static_cast<std::uint32_t>(input.memory_map.size()));

  if (auto placed = place_modules(input, is_for_linux(*image, kernel), plan, start); !placed)
    return fail(placed.error());
  const auto start_address = place_low(plan, "start information", std::move(start));
  if (!start_address) return fail(start_address.error());

  boot.set_cpu = [entry = boot.entry, start_address = *start_address](CpuState& cpu) {
    set_protected_mode(cpu, entry);
    cpu.gpr[kRbx] = start_address.value;
  };
  return boot;
}

}  // namespace vm_platform::boot
