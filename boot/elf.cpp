#include "boot/elf.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace vm_platform::boot {
namespace {

constexpr std::size_t kHeader32 = 52, kHeader64 = 64, kSegment32 = 32, kSegment64 = 56;
constexpr std::uint16_t kMachine386 = 3, kMachineX86_64 = 62, kMachineArm64 = 183, kMachineArm = 40,
                        kMachineRiscv = 243;
constexpr std::uint16_t kExecutable = 2, kShared = 3;
constexpr std::uint16_t kMaxSegments = 256;    // Linux has 5; the limit bounds the work
constexpr std::uint64_t kMaxNotes = 1 * kMiB;  // likewise

std::unexpected<VmError> bad(ErrorCode code, const ByteSource& file, std::string reason) {
  return fail(
      VmError(code, "load kernel", file.name(), std::move(reason))
          .with_hint(code == ErrorCode::Corrupt ? "copy or build the file again" : "use a kernel built for x86"));
}

ElfSegment parse_segment(std::span<const std::byte> bytes, bool is_64) {
  ElfSegment segment;
  segment.type = get<std::uint32_t>(bytes, 0);
  if (is_64) {
    segment.offset = get<std::uint64_t>(bytes, 8);
    segment.virtual_address = get<std::uint64_t>(bytes, 16);
    segment.physical_address = get<std::uint64_t>(bytes, 24);
    segment.file_size = get<std::uint64_t>(bytes, 32);
    segment.memory_size = get<std::uint64_t>(bytes, 40);
  } else {
    segment.offset = get<std::uint32_t>(bytes, 4);
    segment.virtual_address = get<std::uint32_t>(bytes, 8);
    segment.physical_address = get<std::uint32_t>(bytes, 12);
    segment.file_size = get<std::uint32_t>(bytes, 16);
    segment.memory_size = get<std::uint32_t>(bytes, 20);
  }
  return segment;
}

std::string machine_name(std::uint16_t machine) {
  switch (machine) {
    case kMachineArm64: return "AArch64";
    case kMachineArm: return "Arm";
    case kMachineRiscv: return "RISC-V";
    default: return "machine type " + std::to_string(machine);
  }
}

}  // namespace

bool is_elf(const ByteSource& file) {
  std::array<std::byte, 4> magic{};
  return file.read(0, magic) && std::memcmp(magic.data(),
                                            "\x7f"
                                            "ELF",
                                            4) == 0;
}

Result<ElfImage> read_elf(const ByteSource& file) {
  std::array<std::byte, kHeader64> header{};
  const std::uint64_t available = std::min<std::uint64_t>(file.size(), header.size());
  if (auto read = file.read(0, std::span(header).first(available)); !read) return fail(read.error());
  if (available < kHeader32) return bad(ErrorCode::Corrupt, file, "truncated in its ELF header");
  const std::span<const std::byte> bytes = header;
  const auto file_class = get<std::uint8_t>(bytes, 4), data = get<std::uint8_t>(bytes, 5);
  if ((file_class != 1 && file_class != 2) || data != 1)
    return bad(ErrorCode::Unsupported, file, "neither a 32- nor a 64-bit little-endian ELF file");
  const bool is_64 = file_class == 2;
  if (is_64 && available < kHeader64) return bad(ErrorCode::Corrupt, file, "truncated in its ELF header");
  const auto machine = get<std::uint16_t>(bytes, 18);
  if (machine != kMachineX86_64 && machine != kMachine386)
    return bad(ErrorCode::Unsupported, file, "an ELF file for " + machine_name(machine));
  const auto type = get<std::uint16_t>(bytes, 16);
  if (type != kExecutable && type != kShared)
    return bad(ErrorCode::Unsupported, file, "an ELF file that is no program (an object file or a core dump?)");

  ElfImage image{.is_64 = is_64};
  image.entry = is_64 ? get<std::uint64_t>(bytes, 24) : get<std::uint32_t>(bytes, 24);
  const std::uint64_t table = is_64 ? get<std::uint64_t>(bytes, 32) : get<std::uint32_t>(bytes, 28);
  const auto entry_size = get<std::uint16_t>(bytes, is_64 ? 54 : 42),
             count = get<std::uint16_t>(bytes, is_64 ? 56 : 44);
  const std::size_t wanted = is_64 ? kSegment64 : kSegment32;
  if (count == 0 || count > kMaxSegments || entry_size < wanted)
    return bad(ErrorCode::Corrupt, file, "its program header table cannot be right");
  if (table > file.size() || std::uint64_t{count} * entry_size > file.size() - table)
    return bad(ErrorCode::Corrupt, file, "truncated: its program headers lie past the end");
  for (std::uint16_t i = 0; i < count; ++i) {
    std::array<std::byte, kSegment64> raw{};
    if (auto read = file.read(table + std::uint64_t{i} * entry_size, std::span(raw).first(wanted)); !read)
      return fail(read.error());
    image.segments.push_back(parse_segment(raw, is_64));
  }
  return image;
}

std::optional<std::uint64_t> ElfImage::physical_entry() const noexcept {
  for (const ElfSegment& segment : segments) {
    if (segment.type == ElfSegment::kLoad && entry >= segment.virtual_address &&
        entry - segment.virtual_address < segment.memory_size)
      return segment.physical_address + (entry - segment.virtual_address);
  }
  return std::nullopt;
}

Result<void> place_segments(const ElfImage& image, const ByteSource& file, LoadPlan& plan) {
  bool any = false;
  for (const ElfSegment& segment : image.segments) {
    if (segment.type != ElfSegment::kLoad || segment.memory_size == 0) continue;
    any = true;
    if (auto placed = plan.place("kernel", Gpa(segment.physical_address), segment.memory_size, file, segment.offset,
                                 segment.file_size);
        !placed)
      return placed;
  }
  if (!any) return bad(ErrorCode::Corrupt, file, "it has nothing to load");
  return {};
}

std::optional<std::vector<std::byte>> find_note(const ElfImage& image, const ByteSource& file, std::string_view owner,
                                                std::uint32_t type) {
  for (const ElfSegment& segment : image.segments) {
    if (segment.type != ElfSegment::kNote || segment.offset > file.size()) continue;
    std::vector<std::byte> notes(std::min({segment.file_size, file.size() - segment.offset, kMaxNotes}));
    if (!file.read(segment.offset, notes)) continue;
    const std::span<const std::byte> bytes = notes;
    for (std::size_t at = 0; bytes.size() - at >= 12;) {
      const std::uint64_t name_size = get<std::uint32_t>(bytes, at), data_size = get<std::uint32_t>(bytes, at + 4);
      const auto note_type = get<std::uint32_t>(bytes, at + 8);
      const std::uint64_t data_at = at + 12 + round_up(name_size, 4), next = data_at + round_up(data_size, 4);
      if (data_at + data_size > bytes.size()) break;
      if (note_type == type && name_size == owner.size() + 1 &&
          std::memcmp(bytes.data() + at + 12, owner.data(), owner.size()) == 0) {
        const auto data = bytes.subspan(data_at, std::min<std::uint64_t>(data_size, 64));
        return std::vector<std::byte>(data.begin(), data.end());
      }
      if (next > bytes.size()) break;
      at = next;
    }
  }
  return std::nullopt;
}

}  // namespace vm_platform::boot
