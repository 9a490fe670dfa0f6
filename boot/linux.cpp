#include "boot/linux.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "boot/cpu_setup.hpp"

namespace vm_platform::boot {
namespace {

/// The fields of the setup header that matter here: offsets in the file and in the zero page alike (boot.rst, "The
/// Real-Mode Kernel Header").
enum SetupHeader : std::size_t {
  kSetupSects = 0x1f1,
  kSysSize = 0x1f4,
  kBootFlag = 0x1fe,
  kJump = 0x201,  // second byte of the jump over the header: the header ends at 0x202 + this
  kSignature = 0x202,
  kVersion = 0x206,
  kKernelVersion = 0x20e,
  kTypeOfLoader = 0x210,
  kLoadFlags = 0x211,
  kRamdiskImage = 0x218,
  kRamdiskSize = 0x21c,
  kCommandLine = 0x228,
  kInitrdAddressMax = 0x22c,
  kXloadFlags = 0x236,
  kCommandLineSize = 0x238,
  kSetupData = 0x250,
  kPreferredAddress = 0x258,
  kInitSize = 0x260,
  kHeaderEnd = 0x264,  // of what is read here; the header itself may be longer
};
/// Fields of the zero page outside of the header (zero-page.rst).
enum ZeroPage : std::size_t {
  kAcpiRsdp = 0x070,
  kE820Entries = 0x1e8,
  kHeaderStart = 0x1f1,
  kHeaderLimit = 0x290,  // what follows belongs to something else
  kE820Table = 0x2d0,
};
constexpr std::size_t kE820EntrySize = 20, kE820Max = 128;
constexpr std::uint16_t kXlfKernel64 = 1;
constexpr std::uint64_t kSector = 512;

/// Where the small things go, below 640 KiB, away from the first page (the kernel reserves it) and from the 16-bit
/// trampolines that the kernel itself allocates later.
constexpr Gpa kGdtAddress(0x6000), kZeroPageAddress(0x7000), kPageTableAddress(0x9000), kSeedAddress(0xf000),
    kCommandLineAddress(0x20000);
constexpr std::uint64_t kMaxCommandLine = 0x10000;

struct Header {
  std::vector<std::byte> bytes;  // the file's beginning, up to the end of the header
  std::uint64_t setup_size = 0;  // where the protected-mode kernel begins in the file
  std::uint64_t kernel_size = 0;
  std::uint64_t preferred_address = 0, init_size = 0, initrd_max = 0;
  std::uint64_t command_line_max = 0;
  std::string version;
};

std::unexpected<VmError> refuse(ErrorCode code, const ByteSource& kernel, std::string reason, std::string hint) {
  return fail(VmError(code, "load kernel", kernel.name(), std::move(reason)).with_hint(std::move(hint)));
}

std::string read_version(const ByteSource& kernel, std::uint64_t offset, std::uint64_t limit) {
  std::string text;
  for (std::byte byte{}; offset < limit && text.size() < 128; ++offset) {
    if (!kernel.read(offset, {&byte, 1})) return {};
    const char c = static_cast<char>(byte);
    if (c == '\0') return text;
    text += c >= ' ' && c <= '~' ? c : '?';
  }
  return {};
}

Result<Header> read_header(const ByteSource& kernel) {
  Header header;
  header.bytes.resize(kHeaderLimit);
  const std::uint64_t available = std::min<std::uint64_t>(kernel.size(), kHeaderLimit);
  if (auto read = kernel.read(0, std::span(header.bytes).first(available)); !read) return fail(read.error());
  const std::span<const std::byte> bytes = header.bytes;
  if (available < kHeaderEnd)
    return refuse(ErrorCode::Corrupt, kernel, "truncated in its setup header", "copy it again");
  if (get<std::uint16_t>(bytes, kBootFlag) != 0xaa55 || get<std::uint32_t>(bytes, kSignature) != 0x53726448)
    return refuse(ErrorCode::Corrupt, kernel, "not a Linux kernel image", "give a bzImage, such as /boot/vmlinuz-…");
  const auto protocol = get<std::uint16_t>(bytes, kVersion);
  if (protocol < 0x020c) {
    return refuse(ErrorCode::Unsupported, kernel, "its boot protocol is older than 2.12 (kernel 3.8)",
                  "use a newer kernel");
  }
  if ((get<std::uint16_t>(bytes, kXloadFlags) & kXlfKernel64) == 0)
    return refuse(ErrorCode::Unsupported, kernel, "a 32-bit kernel",
                  "use an x86-64 kernel (Debian: linux-image-amd64)");
  std::uint64_t sectors = get<std::uint8_t>(bytes, kSetupSects);
  if (sectors == 0) sectors = 4;  // boot.rst: for backwards compatibility
  header.setup_size = (sectors + 1) * kSector;
  const std::uint64_t declared = std::uint64_t{get<std::uint32_t>(bytes, kSysSize)} * 16;
  if (declared == 0 || kernel.size() < header.setup_size || kernel.size() - header.setup_size + 15 < declared) {
    return refuse(ErrorCode::Corrupt, kernel,
                  "truncated: it says " + std::to_string(header.setup_size + declared) + " bytes and has " +
                      std::to_string(kernel.size()),
                  "copy it again");
  }
  header.kernel_size = std::min(declared, kernel.size() - header.setup_size);
  header.preferred_address = get<std::uint64_t>(bytes, kPreferredAddress);
  header.init_size = std::max<std::uint64_t>(get<std::uint32_t>(bytes, kInitSize), header.kernel_size);
  header.initrd_max = get<std::uint32_t>(bytes, kInitrdAddressMax);
  header.command_line_max = std::min<std::uint64_t>(get<std::uint32_t>(bytes, kCommandLineSize), kMaxCommandLine - 1);
  if (const auto pointer = get<std::uint16_t>(bytes, kKernelVersion); pointer != 0)
    header.version = read_version(kernel, std::uint64_t{pointer} + kSector, header.setup_size);
  return header;
}

/// The initramfs parts end to end, each on a 4-byte boundary, which is where the kernel looks for the next archive.
Result<void> place_initramfs(const BootInput& input, const Header& header, LoadPlan& plan,
                             std::span<std::byte> zero_page) {
  if (input.modules.empty()) return {};
  std::uint64_t total = 0;
  for (const auto& module : input.modules) {
    const std::uint64_t size = module.source->size();
    if (size > UINT32_MAX || total > UINT32_MAX) {
      return fail(VmError(ErrorCode::InvalidArgument, "load initrd", module.source->name(), "larger than 4 GiB")
                      .with_hint("is this the right file?"));
    }
    total = round_up(total, 4) + size;
  }
  const Gpa limit(std::min<std::uint64_t>(header.initrd_max + 1, 4 * kGiB));
  const std::string what = input.modules.size() == 1 ? "initrd " + input.modules[0].source->name() : "initramfs";
  const auto base = plan.find(what, total, Gpa(kMiB), limit);
  if (!base) return fail(base.error());
  std::uint64_t offset = 0;
  for (const auto& module : input.modules) {
    offset = round_up(offset, 4);
    const std::uint64_t size = module.source->size();
    if (auto placed = plan.place("initramfs", *base + offset, round_up(size, 4), *module.source, 0, size); !placed)
      return placed;
    offset += size;
  }
  put(zero_page, kRamdiskImage, static_cast<std::uint32_t>(base->value));
  put(zero_page, kRamdiskSize, static_cast<std::uint32_t>(total));
  return {};
}

/// Entropy for the kernel's generator, so that nothing in the guest waits for it (SETUP_RNG_SEED).
Result<void> place_seed(LoadPlan& plan, std::span<std::byte> zero_page) {
  constexpr std::uint32_t kSetupRngSeed = 9, kSeedSize = 32, kDataOffset = 16;
  std::vector<std::byte> seed(kDataOffset + kSeedSize);
  put<std::uint64_t>(seed, 0, 0);  // the list ends here
  put(seed, 8, kSetupRngSeed);
  put(seed, 12, kSeedSize);
  if (::getrandom(seed.data() + kDataOffset, kSeedSize, GRND_NONBLOCK) != kSeedSize) return {};
  put(zero_page, kSetupData, kSeedAddress.value);
  return plan.place("random seed", kSeedAddress, std::move(seed));
}

Result<void> fill_memory_map(const BootInput& input, std::span<std::byte> zero_page) {
  if (input.memory_map.size() > kE820Max)
    return fail(ErrorCode::InvalidArgument, "load kernel", "memory map", "more than 128 ranges");
  put(zero_page, kE820Entries, static_cast<std::uint8_t>(input.memory_map.size()));
  std::size_t at = kE820Table;
  for (const BootMemoryRange& range : input.memory_map) {
    put(zero_page, at, range.base.value);
    put(zero_page, at + 8, range.size);
    put(zero_page, at + 16, static_cast<std::uint32_t>(range.type));
    at += kE820EntrySize;
  }
  return {};
}

}  // namespace

bool is_linux(const ByteSource& kernel) {
  std::array<std::byte, 4> signature{};
  return kernel.read(kSignature, signature) && std::memcmp(signature.data(), "HdrS", 4) == 0;
}

Result<Boot> plan_linux(const BootInput& input) {
  const ByteSource& kernel = *input.kernel;
  auto header = read_header(kernel);
  if (!header) return fail(header.error());
  if (input.command_line.size() > header->command_line_max) {
    return fail(VmError(ErrorCode::InvalidArgument, "load kernel", kernel.name(),
                        "the command line has " + std::to_string(input.command_line.size()) +
                            " characters, this kernel takes " + std::to_string(header->command_line_max))
                    .with_hint("shorten --cmdline"));
  }
  if (input.command_line.find('\0') != std::string::npos)
    return fail(ErrorCode::InvalidArgument, "load kernel", kernel.name(), "the command line contains a zero byte");

  Boot boot{.plan = LoadPlan(input.memory_map), .method = BootMethod::Linux, .kernel_version = header->version};
  LoadPlan& plan = boot.plan;
  std::vector<std::byte> zero_page(kPageSize);
  // boot.rst, "64-bit Boot Protocol": all zero, then the header from the file up to its own end.
  const std::size_t header_end =
      std::min<std::size_t>(kSignature + get<std::uint8_t>(header->bytes, kJump), kHeaderLimit);
  std::copy(header->bytes.begin() + kHeaderStart,
            header->bytes.begin() + static_cast<std::ptrdiff_t>(std::max<std::size_t>(header_end, kHeaderEnd)),
            zero_page.begin() + kHeaderStart);
  // Whatever the file says of these is the loader's to fill in.
  put<std::uint64_t>(zero_page, kSetupData, 0);
  put<std::uint32_t>(zero_page, kRamdiskImage, 0);
  put<std::uint32_t>(zero_page, kRamdiskSize, 0);

  // The decompressor works in place within init_size bytes from the preferred address; a relocatable kernel loaded
  // below it moves itself there, so no other place needs less memory.
  const Gpa base(header->preferred_address);
  if (auto placed = plan.place("kernel", base, header->init_size, kernel, header->setup_size, header->kernel_size,
                               LoadPlan::Rest::AsItIs);
      !placed)
    return fail(placed.error());
  if (auto placed = plan.place("command line", kCommandLineAddress, c_string(input.command_line)); !placed)
    return fail(placed.error());
  if (auto placed = plan.place("page tables", kPageTableAddress, identity_page_tables(kPageTableAddress)); !placed)
    return fail(placed.error());
  if (auto placed = plan.place("descriptor table", kGdtAddress, flat_gdt()); !placed) return fail(placed.error());
  if (auto placed = place_seed(plan, zero_page); !placed) return fail(placed.error());
  if (auto placed = place_initramfs(input, *header, plan, zero_page); !placed) return fail(placed.error());
  if (auto filled = fill_memory_map(input, zero_page); !filled) return fail(filled.error());

  put<std::uint8_t>(zero_page, kTypeOfLoader, 0xff);  // no assigned number
  put(zero_page, kCommandLine, static_cast<std::uint32_t>(kCommandLineAddress.value));
  put(zero_page, kAcpiRsdp, input.rsdp.value);
  if (auto placed = plan.place("zero page", kZeroPageAddress, std::move(zero_page)); !placed)
    return fail(placed.error());

  boot.entry = base + 0x200;  // boot.rst: the 64-bit entry is 512 bytes into the protected-mode kernel
  boot.set_cpu = [entry = boot.entry](CpuState& cpu) {
    set_long_mode(cpu, entry, kPageTableAddress, kGdtAddress);
    cpu.gpr[kRsi] = kZeroPageAddress.value;
  };
  return boot;
}

}  // namespace vm_platform::boot
