// The loaders: what they place where, and what they refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "boot/detect.hpp"
#include "boot/test_images.hpp"
#include "guest/guest_memory.hpp"

namespace vm_platform::boot {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Loaded {
  Result<Boot> boot;
  GuestMemory memory;
  CpuState cpu;

  std::uint64_t u(std::uint64_t address, unsigned size) const {
    std::array<std::byte, 8> raw{};
    EXPECT_TRUE(memory.read(Gpa(address), std::span(raw).first(size)));
    return get<std::uint64_t>(raw, 0);
  }
  std::string text(std::uint64_t address) const { return reinterpret_cast<const char*>(memory.host(Gpa(address), 64)); }
};

class Loaders : public ::testing::Test {
 protected:
  Loaded load(BootMethod method, std::span<const std::byte> image, std::vector<std::vector<std::byte>> modules = {},
              std::string command_line = "console=ttyS0") {
    const MemorySource kernel("kernel.img", image);
    std::vector<MemorySource> sources;
    sources.reserve(modules.size());
    BootInput input{
        .kernel = &kernel, .command_line = std::move(command_line), .memory_map = map_, .rsdp = Gpa(0x3f00000)};
    for (const auto& bytes : modules) sources.emplace_back("module.img", bytes);
    for (const auto& source : sources) input.modules.push_back({&source, "arguments"});
    Loaded loaded{plan(method, input), std::move(*GuestMemory::create(64 * kMiB)), {}};
    if (loaded.boot) {
      EXPECT_TRUE(loaded.boot->plan.write(loaded.memory));
      loaded.boot->set_cpu(loaded.cpu);
    }
    return loaded;
  }
  std::string error(BootMethod method, std::span<const std::byte> image) {
    auto loaded = load(method, image);
    return loaded.boot ? "no error" : loaded.boot.error().message();
  }

  std::vector<BootMemoryRange> map_ = test::small_map();
};

TEST_F(Loaders, LinuxGetsItsZeroPageAndLongMode) {
  const auto image = test::bz_image();
  const std::vector<std::byte> initrd(5000, std::byte{0x55}), more(3, std::byte{0x66});
  auto loaded = load(BootMethod::Auto, image, {initrd, more});
  ASSERT_TRUE(loaded.boot) << loaded.boot.error().message();
  EXPECT_EQ(loaded.boot->method, BootMethod::Linux);
  EXPECT_EQ(loaded.boot->kernel_version, "6.1.0-test");
  EXPECT_EQ(loaded.boot->entry, Gpa(16 * kMiB + 0x200));
  EXPECT_EQ(loaded.u(16 * kMiB, 1), 0x90U);

  const std::uint64_t zero_page = loaded.cpu.gpr[kRsi];
  EXPECT_EQ(loaded.u(zero_page + 0x202, 4), 0x53726448U);
  EXPECT_EQ(loaded.u(zero_page + 0x1ef, 1), 0U) << "the sentinel";
  EXPECT_EQ(loaded.u(zero_page + 0x070, 8), 0x3f00000U) << "RSDP";
  EXPECT_EQ(loaded.u(zero_page + 0x1e8, 1), map_.size());
  EXPECT_EQ(loaded.u(zero_page + 0x2d0 + 3 * 20, 8), 63 * kMiB);
  EXPECT_EQ(loaded.u(zero_page + 0x2d0 + 3 * 20 + 16, 4), 3U);
  EXPECT_EQ(loaded.text(loaded.u(zero_page + 0x228, 4)), "console=ttyS0");
  const std::uint64_t ramdisk = loaded.u(zero_page + 0x218, 4);
  EXPECT_EQ(loaded.u(zero_page + 0x21c, 4), 5003U);
  EXPECT_EQ(loaded.u(ramdisk + 4999, 1), 0x55U);
  EXPECT_EQ(loaded.u(ramdisk + 5000, 1), 0x66U) << "the second archive on the next 4-byte boundary";
  EXPECT_LE(ramdisk + 5003, 63 * kMiB) << "above it are ACPI tables";

  EXPECT_EQ(loaded.cpu.rip, 16 * kMiB + 0x200);
  EXPECT_EQ(loaded.cpu.cr0 & 0x80000001, 0x80000001U);
  EXPECT_EQ(loaded.cpu.efer, 0x500U);
  EXPECT_EQ(loaded.cpu.segments[kCs].selector, 0x10);
  EXPECT_EQ(loaded.cpu.segments[kDs].selector, 0x18);
  EXPECT_EQ(loaded.cpu.rflags & 0x200, 0U);
  // The page tables map 3 GiB + 4 MiB onto itself.
  const std::uint64_t pdpt = loaded.u(loaded.cpu.cr3, 8) & ~0xfffULL;
  const std::uint64_t directory = loaded.u(pdpt + 3 * 8, 8) & ~0xfffULL;
  EXPECT_EQ(loaded.u(directory + 2 * 8, 8), 3 * kGiB + 4 * kMiB + 0x83);
}

TEST_F(Loaders, LinuxRefusesWhatItCannotBoot) {
  const auto broken = [&](auto&& change) {
    auto image = test::bz_image();
    change(image);
    return error(BootMethod::Auto, image);
  };
  EXPECT_THAT(broken([](auto& i) { i.resize(i.size() - 100); }), HasSubstr("truncated"));
  EXPECT_THAT(broken([](auto& i) { i.resize(0x230); }), HasSubstr("truncated"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint16_t>(i, 0x206, 0x0204); }), HasSubstr("older than 2.12"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint16_t>(i, 0x236, 0); }), HasSubstr("32-bit kernel"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint32_t>(i, 0x1f4, 0xffffffff); }), HasSubstr("truncated"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint32_t>(i, 0x260, 512U << 20); }),
              AllOf(HasSubstr("not in the guest's memory"), HasSubstr("--memory 544M")));
  EXPECT_THAT(broken([](auto& i) { put<std::uint64_t>(i, 0x258, ~0ULL - 4095); }), HasSubstr("damaged"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint64_t>(i, 0x258, 0x7000); }), HasSubstr("not in the guest's memory"));
}

TEST_F(Loaders, AnInitrdThatDoesNotFitIsNamed) {
  const auto loaded = load(BootMethod::Auto, test::bz_image(), {std::vector<std::byte>(48 * kMiB)});
  ASSERT_FALSE(loaded.boot);
  EXPECT_EQ(loaded.boot.error().code(), ErrorCode::InvalidArgument);
  EXPECT_THAT(loaded.boot.error().message(),
              AllOf(HasSubstr("module.img"), HasSubstr("48.0 MiB"), HasSubstr("--memory")));
}

TEST_F(Loaders, ACommandLineThatIsTooLongIsRefused) {
  const auto loaded = load(BootMethod::Auto, test::bz_image(), {}, std::string(2048, 'x'));
  ASSERT_FALSE(loaded.boot);
  EXPECT_THAT(loaded.boot.error().message(), HasSubstr("2048 characters"));
}

TEST_F(Loaders, PvhGetsItsStartInformation) {
  const std::vector<std::byte> module(100, std::byte{0x77});
  auto loaded = load(BootMethod::Auto, test::elf({.memory_size = 16384}), {module});
  ASSERT_TRUE(loaded.boot) << loaded.boot.error().message();
  EXPECT_EQ(loaded.boot->method, BootMethod::Pvh);
  EXPECT_EQ(loaded.cpu.rip, 2 * kMiB);
  EXPECT_EQ(loaded.cpu.cr0 & 0x80000001, 1U);
  EXPECT_EQ(loaded.u(2 * kMiB + 4095, 1), 0x90U);
  EXPECT_EQ(loaded.u(2 * kMiB + 4096, 1), 0U);
  const std::uint64_t start = loaded.cpu.gpr[kRbx];
  EXPECT_EQ(loaded.u(start, 4), 0x336ec578U);
  EXPECT_EQ(loaded.u(start + 4, 4), 1U);
  EXPECT_EQ(loaded.text(loaded.u(start + 24, 8)), "console=ttyS0");
  EXPECT_EQ(loaded.u(start + 32, 8), 0x3f00000U);
  EXPECT_EQ(loaded.u(start + 48, 4), map_.size());
  const std::uint64_t map = loaded.u(start + 40, 8);
  EXPECT_EQ(loaded.u(map + 2 * 24 + 8, 8), 62 * kMiB);
  ASSERT_EQ(loaded.u(start + 12, 4), 1U);
  const std::uint64_t list = loaded.u(start + 16, 8);
  EXPECT_EQ(loaded.u(list + 8, 8), 100U);
  EXPECT_EQ(loaded.u(loaded.u(list, 8) + 99, 1), 0x77U);
  EXPECT_EQ(loaded.text(loaded.u(list + 16, 8)), "arguments");
}

TEST_F(Loaders, ElfRefusesWhatCannotBe) {
  const auto broken = [&](auto&& change) {
    auto image = test::elf();
    change(image);
    return error(BootMethod::Pvh, image);
  };
  constexpr std::size_t kLoad = 64;
  EXPECT_THAT(broken([](auto& i) { put<std::uint16_t>(i, 18, 183); }), HasSubstr("AArch64"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint16_t>(i, 56, 0xffff); }), HasSubstr("program header table"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint64_t>(i, 32, ~0ULL); }), HasSubstr("past the end"));
  EXPECT_THAT(broken([](auto& i) { i.resize(4096 + 100); }), HasSubstr("truncated"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint64_t>(i, kLoad + 8, ~0ULL); }), HasSubstr("truncated"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint64_t>(i, kLoad + 40, 1ULL << 40); }), HasSubstr("guest's memory"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint64_t>(i, kLoad + 40, 100); }), HasSubstr("larger than its place"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint64_t>(i, kLoad + 24, ~0ULL - 100); }), HasSubstr("damaged"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint32_t>(i, 516, 0xfffffff0); }), HasSubstr("without a PVH entry note"));
  EXPECT_THAT(broken([](auto& i) { put<std::uint64_t>(i, kLoad + 56 + 32, ~0ULL); }),
              ::testing::Not(HasSubstr("note")));
}

TEST_F(Loaders, MultibootElfGetsTheInformationBlock) {
  const auto image = test::elf({.is_64 = false, .pvh_note = false, .multiboot = true});
  const std::vector<std::byte> module(5000, std::byte{0x33});
  auto loaded = load(BootMethod::Auto, image, {module, module});
  ASSERT_TRUE(loaded.boot) << loaded.boot.error().message();
  EXPECT_EQ(loaded.boot->method, BootMethod::Multiboot);
  EXPECT_EQ(loaded.cpu.rip, 2 * kMiB);
  EXPECT_EQ(loaded.cpu.gpr[kRax], 0x2badb002U);
  const std::uint64_t info = loaded.cpu.gpr[kRbx];
  EXPECT_EQ(loaded.u(info, 4), 0x24dU);
  EXPECT_EQ(loaded.u(info + 4, 4), 636U);
  EXPECT_EQ(loaded.u(info + 8, 4), 62 * 1024U);
  EXPECT_EQ(loaded.text(loaded.u(info + 16, 4)), "kernel.img console=ttyS0");
  EXPECT_EQ(loaded.u(info + 44, 4), map_.size() * 24);
  const std::uint64_t map = loaded.u(info + 48, 4);
  EXPECT_EQ(loaded.u(map, 4), 20U);
  EXPECT_EQ(loaded.u(map + 24 + 4, 8), 0x9f000U);
  ASSERT_EQ(loaded.u(info + 20, 4), 2U);
  const std::uint64_t list = loaded.u(info + 24, 4);
  for (const unsigned i : {0U, 1U}) {
    const std::uint64_t begin = loaded.u(list + i * 16, 4), end = loaded.u(list + i * 16 + 4, 4);
    EXPECT_EQ(begin % kPageSize, 0U);
    EXPECT_EQ(end - begin, 5000U);
    EXPECT_EQ(loaded.u(end - 1, 1), 0x33U);
    EXPECT_EQ(loaded.text(loaded.u(list + i * 16 + 8, 4)), "module.img arguments");
  }
  EXPECT_EQ(loaded.u(0x413, 2), 636U) << "the BIOS data area says so too";
  EXPECT_EQ(loaded.text(loaded.u(info + 64, 4)), "vm-platform");
}

TEST_F(Loaders, MultibootByAddresses) {
  auto image = test::multiboot_flat();
  auto loaded = load(BootMethod::Auto, image);
  ASSERT_TRUE(loaded.boot) << loaded.boot.error().message();
  EXPECT_EQ(loaded.cpu.rip, kMiB + 96);
  EXPECT_EQ(loaded.u(kMiB + 64, 4), 0x1badb002U);
  EXPECT_EQ(loaded.u(kMiB + 4096, 8), 0U);

  put<std::uint32_t>(image, 64 + 16, kMiB + 65);  // load address past the header
  EXPECT_THAT(error(BootMethod::Multiboot, image), HasSubstr("begins before the file"));
  image = test::multiboot_flat();
  put<std::uint32_t>(image, 64 + 20, 0xffffffff);
  EXPECT_THAT(error(BootMethod::Multiboot, image), HasSubstr("truncated"));
  image = test::multiboot_flat();
  put<std::uint32_t>(image, 64 + 24, kMiB + 1);
  EXPECT_THAT(error(BootMethod::Multiboot, image), HasSubstr("bss"));
}

TEST_F(Loaders, OtherFilesAreNamedForWhatTheyAre) {
  const auto bytes = [](std::string_view text) {
    const auto span = std::as_bytes(std::span(text));
    return std::vector<std::byte>(span.begin(), span.end());
  };
  EXPECT_THAT(error(BootMethod::Auto, bytes("\x1f\x8b gz")), HasSubstr("a gzip file"));
  EXPECT_THAT(error(BootMethod::Auto, bytes("#!/bin/sh")), HasSubstr("a script"));
  EXPECT_THAT(error(BootMethod::Auto, bytes("070701")), HasSubstr("cpio"));
  EXPECT_THAT(error(BootMethod::Auto, bytes("x")), HasSubstr("not a kernel"));
  EXPECT_THAT(error(BootMethod::Auto, test::elf({.pvh_note = false})), HasSubstr("without a PVH note"));
}

TEST(LoadPlan, FindsPlacesBetweenThings) {
  LoadPlan plan(test::small_map());
  ASSERT_TRUE(plan.place("a", Gpa(kMiB), std::vector<std::byte>(4096)));
  EXPECT_EQ(*plan.find("b", 4096, Gpa(kMiB), Gpa(4 * kGiB), LoadPlan::Search::Lowest), Gpa(kMiB + 4096));
  EXPECT_EQ(*plan.find("b", 5000, Gpa(0), Gpa(4 * kGiB)), Gpa(63 * kMiB - 8192));
  EXPECT_EQ(*plan.find("b", 62 * kMiB - 4096, Gpa(0), Gpa(4 * kGiB)), Gpa(kMiB + 4096));
  EXPECT_FALSE(plan.find("b", 62 * kMiB, Gpa(0), Gpa(4 * kGiB)));
  EXPECT_FALSE(plan.find("b", UINT64_MAX, Gpa(0), Gpa(4 * kGiB)));
  EXPECT_FALSE(plan.find("b", UINT64_MAX - 5000, Gpa(0), Gpa(UINT64_MAX)));
  EXPECT_FALSE(plan.place("c", Gpa(kMiB + 4095), std::vector<std::byte>(1))) << "over a";
  EXPECT_FALSE(plan.place("c", Gpa(0x9efff), std::vector<std::byte>(2))) << "into reserved memory";
}

class Files : public ::testing::Test {
 protected:
  Files() {
    std::string name = (std::filesystem::temp_directory_path() / "boot-test-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
  }
  ~Files() override { std::filesystem::remove_all(directory_); }
  std::string write(const std::string& name, std::span<const std::byte> bytes) {
    const std::string path = (directory_ / name).string();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  std::filesystem::path directory_;
};

TEST_F(Files, ManagerLoadsAgainAfterTheFileIsReplaced) {
  const std::string path = write("vmlinuz", test::bz_image());
  auto manager = SimpleBootManager::open({.kernel = path, .command_line = "quiet"});
  ASSERT_TRUE(manager) << manager.error().message();
  EXPECT_FALSE((*manager)->status().loaded);
  std::filesystem::remove(path);
  const auto map = test::small_map();
  for (int i = 0; i < 2; ++i) {
    const auto memory = GuestMemory::create(64 * kMiB);
    CpuState cpu;
    ASSERT_TRUE((*manager)->load({.memory = &*memory, .memory_map = map}, cpu));
    EXPECT_EQ(cpu.rip, 16 * kMiB + 0x200);
  }
  const BootStatus& status = (*manager)->status();
  EXPECT_TRUE(status.loaded);
  EXPECT_EQ(status.method, BootMethod::Linux);
  EXPECT_EQ(status.kernel_version, "6.1.0-test");
  EXPECT_EQ(status.placed.front().what, "kernel");
}

TEST_F(Files, FilesThatCannotBeUsedAreNamed) {
  const auto error = [](const std::string& kernel, std::vector<BootModule> modules = {}) {
    auto manager = SimpleBootManager::open({.kernel = kernel, .modules = std::move(modules)});
    return manager ? "no error" : manager.error().message();
  };
  const std::string good = write("vmlinuz", test::bz_image());
  EXPECT_THAT(error("/no/such/kernel"), AllOf(HasSubstr("/no/such/kernel"), HasSubstr("No such file")));
  EXPECT_THAT(error(directory_.string()), HasSubstr("is a directory"));
  EXPECT_THAT(error(write("empty", {})), HasSubstr("is empty"));
  EXPECT_THAT(error("/dev/zero"), HasSubstr("not a regular file"));
  EXPECT_THAT(error(good, {{"/no/such/initrd"}}), AllOf(HasSubstr("initrd"), HasSubstr("/no/such/initrd")));
}

TEST_F(Files, AFileThatShrinksIsAnError) {
  const std::string path = write("vmlinuz", test::bz_image(2 * kMiB));
  auto manager = SimpleBootManager::open({.kernel = path});
  ASSERT_TRUE(manager);
  std::filesystem::resize_file(path, kMiB);
  const auto memory = GuestMemory::create(64 * kMiB);
  const auto map = test::small_map();
  CpuState cpu;
  const auto loaded = (*manager)->load({.memory = &*memory, .memory_map = map}, cpu);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), ErrorCode::Corrupt);
}

}  // namespace
}  // namespace vm_platform::boot
