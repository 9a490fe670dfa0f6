// For tests of what happens when the host says no: children whose limits, once lowered, stay low.
#pragma once

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>
#include <vm_platform/memory.hpp>

#include "os/test_code.hpp"

namespace vm_platform {

#if VMP_TEST_ASAN || VMP_TEST_TSAN
#define SKIP_WITH_SANITIZERS() GTEST_SKIP() << "the sanitizers' own memory does not fit the limits"
#else
#define SKIP_WITH_SANITIZERS() (void)0
#endif

/// In a child: a false condition ends it with a message.
inline void check(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "not so: %s\n", what.c_str());
  std::_Exit(1);
}

template <typename T>
void check_error(const Result<T>& result, MemoryError detail, const char* in_message) {
  check(!result.has_value(), "it should have failed");
  const std::string message = result.error().message();
  std::fprintf(stderr, "%s\n", message.c_str());
  check(result.error().detail() == make_error_code(detail), "the detail of: " + message);
  check(message.find(in_message) != std::string::npos, std::string(in_message) + " in: " + message);
  check(!result.error().hint().empty(), "a hint in: " + message);
}

struct Held {
  std::size_t mappings = 0, descriptors = 0;
  bool operator==(const Held&) const = default;
};
inline Held held() {
  Held now;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find("[heap]") == std::string::npos) ++now.mappings;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++now.descriptors;
  }
  return now;
}

#define EXPECT_CHILD(function) EXPECT_EXIT((function(), std::_Exit(0)), testing::ExitedWithCode(0), "")

inline void lower(__rlimit_resource_t which, rlim_t to) {
  const rlimit value{to, to};
  check(::setrlimit(which, &value) == 0, "setrlimit");
}

/// Lets the system call fail with EPERM, always or only where the third argument has a bit set.
inline void forbid(std::vector<std::pair<long, unsigned>> calls) {
  std::vector<sock_filter> program = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const auto& [number, bit] : calls) {
    const auto k = static_cast<std::uint32_t>(number);
    if (bit == 0) {
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, 1));
      program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
    } else {
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, 4));
      program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])));
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bit, 0, 1));
      program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
      program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    }
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
  check(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0, "seccomp");
}

/// With as many mappings as the host allows, where that is soon reached.
class MappingLimitTest : public testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITH_SANITIZERS();
    std::ifstream("/proc/sys/vm/max_map_count") >> most_;
    if (most_ > 200'000) GTEST_SKIP() << "vm.max_map_count is " << most_ << ": too long to reach";
  }
  std::uint64_t most_ = 0;
};

}  // namespace vm_platform
