// What nobody handles leaves a core dump of the fault itself: its registers are those of the instruction that faulted.
#include <elf.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vm_platform/memory.hpp>
#include <vm_platform/signals.hpp>

#include "os/test_code.hpp"

namespace vm_platform {
namespace {

std::uintptr_t pc_of(const prstatus_t& status) {
  user_regs_struct registers{};
  static_assert(sizeof registers == sizeof status.pr_reg);
  std::memcpy(&registers, &status.pr_reg, sizeof registers);
#if defined(__x86_64__)
  return registers.rip;
#else
  return registers.pc;
#endif
}

/// The program counter of the thread that crashed: the first NT_PRSTATUS of the core file.
std::optional<std::uintptr_t> pc_in_core(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const auto read = [&file](std::uint64_t at, auto& into) {
    file.seekg(static_cast<std::streamoff>(at));
    return static_cast<bool>(file.read(reinterpret_cast<char*>(&into), sizeof into));
  };
  Elf64_Ehdr header{};
  if (!read(0, header)) return std::nullopt;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    if (!read(header.e_phoff + i * sizeof segment, segment)) return std::nullopt;
    if (segment.p_type != PT_NOTE) continue;
    for (std::uint64_t at = segment.p_offset; at < segment.p_offset + segment.p_filesz;) {
      Elf64_Nhdr note{};
      if (!read(at, note)) return std::nullopt;
      at += sizeof note + round_up(note.n_namesz, 4);
      prstatus_t status{};
      if (note.n_type == NT_PRSTATUS) return read(at, status) ? std::optional(pc_of(status)) : std::nullopt;
      at += round_up(note.n_descsz, 4);
    }
  }
  return std::nullopt;
}

class CoreDumpTest : public testing::Test {
 public:
  /// A load from inaccessible memory, by an instruction at a known address.
  VMP_CALLS_GENERATED_CODE void load(std::uint64_t offset) const {
    test_code::as_function<int(const std::byte*)>(code_->executable())(nowhere_->data() + offset);
  }

 protected:
  void SetUp() override {
#if VMP_TEST_ASAN || VMP_TEST_TSAN
    GTEST_SKIP() << "sanitizers report and exit instead, and their cores are terabytes";
#endif
    std::string pattern;
    std::ifstream("/proc/sys/kernel/core_pattern") >> pattern;
    rlimit limit{};
    ::getrlimit(RLIMIT_CORE, &limit);
    if (pattern.empty() || pattern.find_first_of("|/") != std::string::npos)
      GTEST_SKIP() << "core dumps go elsewhere: " << pattern;
    if (limit.rlim_max < 256 * kMiB) GTEST_SKIP() << "core dumps are not allowed";
    std::string name = (std::filesystem::temp_directory_path() / "vmp-core-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    code_ = JitMemory::create(kPageSize);
    ASSERT_TRUE(code_ && code_->store(0, test_code::load_from_argument()));
    nowhere_ = MappedMemory::create({.size = 2 * kPageSize, .protection = MemoryProtection::None});
    ASSERT_TRUE(nowhere_.has_value());
  }
  void TearDown() override {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }

  /// Runs `crash` in a child; the address of the instruction in its core dump.
  template <typename Crash>
  std::optional<std::uintptr_t> crash_in_child(Crash crash, int signal = SIGSEGV) {
    const pid_t child = ::fork();
    if (child == 0) {
      rlimit limit{};
      ::getrlimit(RLIMIT_CORE, &limit);
      limit.rlim_cur = limit.rlim_max;
      if (::chdir(folder_.c_str()) != 0 || ::setrlimit(RLIMIT_CORE, &limit) != 0) ::_exit(2);
      ::signal(signal, SIG_DFL);
      crash();
      ::_exit(3);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << status;
    EXPECT_TRUE(WCOREDUMP(status));
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) return pc_in_core(entry.path());
    return std::nullopt;
  }

  std::filesystem::path folder_;
  Result<JitMemory> code_ = fail(ErrorCode::Status, "", "");
  Result<MappedMemory> nowhere_ = fail(ErrorCode::Status, "", "");
};

TEST_F(CoreDumpTest, OfAFaultOutsideAnyRange) {
  const auto pc = crash_in_child([&] {
    auto elsewhere = MappedMemory::create_private(kPageSize);
    const auto resume = [](Fault&, void*) noexcept { return FaultAction::Resume; };
    auto handler = register_sigsegv_handler(elsewhere->bytes(), resume, nullptr);
    load(0);
  });
  ASSERT_TRUE(pc.has_value());
  EXPECT_EQ(*pc, reinterpret_cast<std::uintptr_t>(code_->executable()));
}

TEST_F(CoreDumpTest, OfAFaultInsideAHandler) {
  const auto pc = crash_in_child([&] {
    const auto faulty = [](Fault&, void* user) noexcept {
      static_cast<CoreDumpTest*>(user)->load(kPageSize);
      return FaultAction::Resume;
    };
    auto handler = register_sigsegv_handler(nowhere_->bytes().first(kPageSize), faulty, this);
    *static_cast<volatile std::byte*>(nowhere_->data());
  });
  ASSERT_TRUE(pc.has_value());
  EXPECT_EQ(*pc, reinterpret_cast<std::uintptr_t>(code_->executable())) << "the second fault, not the first";
}

#if defined(__x86_64__)
TEST_F(CoreDumpTest, OfABreakpoint) {
  const auto body = test_code::bytes_of({0xcc, 0xc3});  // int3; ret
  ASSERT_TRUE(code_->store(0, body).has_value());
  const auto pc = crash_in_child(
      [&] {
        const auto pass = [](Fault&, void*) noexcept { return FaultAction::Pass; };
        auto handler = SignalHandler::install({.kinds = FaultKind::Trap}, pass, nullptr);
        test_code::call(code_->executable());
      },
      SIGTRAP);
  ASSERT_TRUE(pc.has_value());
  EXPECT_EQ(*pc, reinterpret_cast<std::uintptr_t>(code_->executable()) + 1) << "as without us: behind the breakpoint";
}
#endif

}  // namespace
}  // namespace vm_platform
