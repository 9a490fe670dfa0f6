#include "boot/multiboot.hpp"

#include <algorithm>
#include <optional>

#include "boot/cpu_setup.hpp"
#include "boot/elf.hpp"

namespace vm_platform::boot {
namespace {

// 3.1, the header.
constexpr std::uint32_t kHeaderMagic = 0x1badb002;
constexpr std::uint64_t kSearch = 8192;
constexpr std::size_t kShortHeader = 12, kAddressHeader = 32;
constexpr std::uint32_t kHasAddresses = 1 << 16;
constexpr std::uint32_t kUnderstood = 0x7;  // of the bits a loader must understand: page alignment, memory, video
// 3.2 and 3.3, the machine state and the information block.
constexpr std::uint32_t kLoaderMagic = 0x2badb002;
enum Info : std::size_t {
  kFlags = 0,
  kMemLower = 4,
  kMemUpper = 8,
  kCommandLine = 16,
  kModuleCount = 20,
  kModules = 24,
  kMapLength = 44,
  kMap = 48,
  kLoaderName = 64,
  kInfoSize = 120,
};
enum InfoFlag : std::uint32_t {
  kWithMemory = 1,
  kWithCommandLine = 4,
  kWithModules = 8,
  kWithMap = 0x40,
  kWithName = 0x200
};
constexpr std::size_t kModuleSize = 16, kMapEntrySize = 24;
constexpr Gpa kBiosData(0x400);
constexpr std::size_t kBiosMemorySize = 0x13, kBiosDataSize = 0x15;
constexpr Gpa kLowFloor(0x6000), kLowLimit(0x90000);

struct Header {
  std::uint64_t offset = 0;  // in the file
  std::uint32_t flags = 0;
  std::uint32_t header_address = 0, load_address = 0, load_end = 0, bss_end = 0, entry = 0;
};

std::unexpected<VmError> corrupt(const ByteSource& kernel, std::string reason) {
  return fail(VmError(ErrorCode::Corrupt, "load kernel", kernel.name(), std::move(reason))
                  .with_hint("copy or build the file again"));
}

std::optional<Header> find_header(const ByteSource& kernel) {
  std::vector<std::byte> bytes(std::min(kernel.size(), kSearch));
  if (!kernel.read(0, bytes)) return std::nullopt;
  for (std::size_t at = 0; at + kShortHeader <= bytes.size(); at += 4) {
    if (get<std::uint32_t>(bytes, at) != kHeaderMagic) continue;
    const auto flags = get<std::uint32_t>(bytes, at + 4), checksum = get<std::uint32_t>(bytes, at + 8);
    if (kHeaderMagic + flags + checksum != 0) continue;
    Header header{.offset = at, .flags = flags};
    if ((flags & kHasAddresses) == 0) return header;
    if (at + kAddressHeader > bytes.size()) continue;
    header.header_address = get<std::uint32_t>(bytes, at + 12);
    header.load_address = get<std::uint32_t>(bytes, at + 16);
    header.load_end = get<std::uint32_t>(bytes, at + 20);
    header.bss_end = get<std::uint32_t>(bytes, at + 24);
    header.entry = get<std::uint32_t>(bytes, at + 28);
    return header;
  }
  return std::nullopt;
}

/// 3.1.3: the kernel says itself where it goes ("a.out kludge").
Result<Gpa> place_by_addresses(const Header& header, const ByteSource& kernel, LoadPlan& plan) {
  const std::uint64_t before = header.header_address - std::uint64_t{header.load_address};
  if (header.load_address > header.header_address || before > header.offset)
    return corrupt(kernel, "its Multiboot header begins before the file");
  const std::uint64_t start = header.offset - before;
  std::uint64_t size = kernel.size() - start;  // 0: the whole rest of the file
  if (header.load_end != 0) {
    if (header.load_end <= header.load_address || header.load_end - header.load_address > size)
      return corrupt(kernel, "truncated, or its Multiboot load addresses are wrong");
    size = header.load_end - header.load_address;
  }
  std::uint64_t memory_size = size;
  if (header.bss_end != 0) {
    if (header.bss_end < header.load_address + size) return corrupt(kernel, "its Multiboot bss ends before its data");
    memory_size = header.bss_end - header.load_address;
  }
  if (auto placed = plan.place("kernel", Gpa(header.load_address), memory_size, kernel, start, size); !placed)
    return fail(placed.error());
  return Gpa(header.entry);
}

Result<Gpa> place_elf(const ByteSource& kernel, LoadPlan& plan) {
  if (!is_elf(kernel)) return corrupt(kernel, "a Multiboot kernel that is no ELF file and gives no load addresses");
  const auto image = read_elf(kernel);
  if (!image) return fail(image.error());
  if (auto placed = place_segments(*image, kernel, plan); !placed) return fail(placed.error());
  const auto entry = image->physical_entry();
  if (!entry || *entry > UINT32_MAX) return corrupt(kernel, "its entry " + hex(image->entry) + " is in no segment");
  return Gpa(*entry);
}

/// Command lines begin with the name of the file, as the first loaders of this protocol have it and Xen, for one,
/// expects of every loader that does not call itself GRUB 2: it drops the first word.
std::string with_name(const ByteSource& file, const std::string& arguments) {
  return arguments.empty() ? file.name() : file.name() + " " + arguments;
}

/// Small things, below what any kernel is linked to.
class LowMemory {
 public:
  explicit LowMemory(LoadPlan& plan) : plan_(plan) {}
  Result<std::uint32_t> place(const char* what, std::vector<std::byte> bytes) {
    const auto address = plan_.find(what, bytes.size(), kLowFloor, kLowLimit, LoadPlan::Search::Lowest);
    if (!address) return fail(address.error());
    if (auto placed = plan_.place(what, *address, std::move(bytes)); !placed) return fail(placed.error());
    return static_cast<std::uint32_t>(address->value);
  }

 private:
  LoadPlan& plan_;
};

/// 3.3: KiB of RAM from `base` to the first hole, at most `limit`.
std::uint32_t contiguous_kib(std::span<const BootMemoryRange> map, std::uint64_t base, std::uint64_t limit) {
  for (const BootMemoryRange& range : map) {
    if (range.type == BootMemoryRange::Type::Ram && range.base.value <= base && base - range.base.value < range.size) {
      const std::uint64_t kib = (range.size - (base - range.base.value)) / kKiB;
      return static_cast<std::uint32_t>(std::min(kib, limit));
    }
  }
  return 0;
}

Result<void> place_map(std::span<const BootMemoryRange> ranges, LowMemory& low, std::span<std::byte> info) {
  std::vector<std::byte> map(ranges.size() * kMapEntrySize);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const std::size_t at = i * kMapEntrySize;
    put<std::uint32_t>(map, at, kMapEntrySize - 4);  // the size does not count itself
    put(map, at + 4, ranges[i].base.value);
    put(map, at + 12, ranges[i].size);
    put(map, at + 20, static_cast<std::uint32_t>(ranges[i].type));
  }
  const auto length = static_cast<std::uint32_t>(map.size());
  const auto address = low.place("memory map", std::move(map));
  if (!address) return fail(address.error());
  put(info, kMapLength, length);
  put(info, kMap, *address);
  return {};
}

/// The one word of the BIOS data area that kernels look for beside the information block: the KiB of low memory, below
/// whose end Xen puts its start-up code. No firmware has run that would have left it. A kernel of which a part is
/// loaded there does not read it.
void place_bios_data(std::uint32_t low_kib, LoadPlan& plan) {
  std::vector<std::byte> data(kBiosDataSize);
  put(data, kBiosMemorySize, static_cast<std::uint16_t>(low_kib));
  (void)plan.place("BIOS data", kBiosData, std::move(data));
}

Result<void> place_modules(const BootInput& input, LoadPlan& plan, LowMemory& low, std::span<std::byte> info) {
  if (input.modules.empty()) return {};
  std::vector<std::byte> list(input.modules.size() * kModuleSize);
  for (std::size_t i = 0; i < input.modules.size(); ++i) {
    const auto& [source, text] = input.modules[i];
    // On a page of its own, which bit 0 of the header asks for and which does no harm otherwise.
    const auto address =
        plan.find("module " + source->name(), source->size(), Gpa(kMiB), Gpa(4 * kGiB), LoadPlan::Search::Lowest);
    if (!address) return fail(address.error());
    if (auto placed = plan.place("module", *address, source->size(), *source, 0, source->size()); !placed)
      return placed;
    const auto text_address = low.place("module command line", c_string(with_name(*source, text)));
    if (!text_address) return fail(text_address.error());
    put(list, i * kModuleSize, static_cast<std::uint32_t>(address->value));
    put(list, i * kModuleSize + 4, static_cast<std::uint32_t>(address->value + source->size()));
    put(list, i * kModuleSize + 8, *text_address);
  }
  const auto list_address = low.place("module list", std::move(list));
  if (!list_address) return fail(list_address.error());
  put(info, kModuleCount, static_cast<std::uint32_t>(input.modules.size()));
  put(info, kModules, *list_address);
  return {};
}

}  // namespace

bool is_multiboot(const ByteSource& kernel) { return find_header(kernel).has_value(); }

Result<Boot> plan_multiboot(const BootInput& input) {
  const ByteSource& kernel = *input.kernel;
  const auto header = find_header(kernel);
  if (!header) {
    return fail(VmError(ErrorCode::Unsupported, "load kernel", kernel.name(), "no Multiboot header in its first 8 KiB")
                    .with_hint("link the header to the front of the image"));
  }
  if ((header->flags & 0xffff & ~kUnderstood) != 0)
    return fail(ErrorCode::Unsupported, "load kernel", kernel.name(),
                "it wants Multiboot features " + hex(header->flags & 0xffff));

  Boot boot{.plan = LoadPlan(input.memory_map), .method = BootMethod::Multiboot};
  LoadPlan& plan = boot.plan;
  const auto entry =
      (header->flags & kHasAddresses) != 0 ? place_by_addresses(*header, kernel, plan) : place_elf(kernel, plan);
  if (!entry) return fail(entry.error());
  boot.entry = *entry;

  LowMemory low(plan);
  std::vector<std::byte> info(kInfoSize);
  std::uint32_t flags = kWithMemory | kWithCommandLine | kWithMap | kWithName;
  const std::uint32_t low_kib = contiguous_kib(input.memory_map, 0, 640);
  place_bios_data(low_kib, plan);
  put(info, kMemLower, low_kib);
  put(info, kMemUpper, contiguous_kib(input.memory_map, kMiB, UINT32_MAX));
  const auto command_line = low.place("command line", c_string(with_name(kernel, input.command_line)));
  if (!command_line) return fail(command_line.error());
  put(info, kCommandLine, *command_line);
  const auto name = low.place("loader name", c_string("vm-platform"));
  if (!name) return fail(name.error());
  put(info, kLoaderName, *name);
  if (auto placed = place_map(input.memory_map, low, info); !placed) return fail(placed.error());
  if (auto placed = place_modules(input, plan, low, info); !placed) return fail(placed.error());
  if (!input.modules.empty()) flags |= kWithModules;
  put(info, kFlags, flags);
  const auto info_address = low.place("Multiboot information", std::move(info));
  if (!info_address) return fail(info_address.error());

  boot.set_cpu = [entry = boot.entry, info_address = *info_address](CpuState& cpu) {
    set_protected_mode(cpu, entry);
    cpu.gpr[kRax] = kLoaderMagic;
    cpu.gpr[kRbx] = info_address;
  };
  return boot;
}

}  // namespace vm_platform::boot
