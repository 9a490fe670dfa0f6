#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>
#include <vm_platform/threading.hpp>

#include "os/threading_host.hpp"

#ifdef _WIN32
#include <windows.h>
#else
#include <sched.h>
#include <sys/resource.h>
#endif

namespace vm_platform {
namespace {

#define ASSERT_OK(result) ASSERT_TRUE((result).has_value()) << (result).error().message()

/// Affinity belongs to the thread: each test has its own.
template <typename Function>
void in_thread(Function function) {
  std::jthread(function).join();
}

TEST(ThreadingTest, OneCpuMeansThatCpu) {
  in_thread([] {
    const auto allowed = read_topology()->allowed.list();
    for (const unsigned cpu : allowed) {
      ASSERT_OK(set_thread_cpu(cpu));
      EXPECT_EQ(thread_affinity().value(), CpuSet{cpu});
#ifdef __linux__  // Wine's idea of the current CPU is the host's, but it does not promise to have moved yet
      EXPECT_EQ(current_cpu(), cpu);
#endif
    }
  });
}

TEST(ThreadingTest, UnknownCpusAreErrors) {
  in_thread([] {
    const auto before = thread_affinity();
    for (const unsigned cpu : {777U, 5000U, 0xffffffffU}) {
      const auto done = set_thread_cpu(cpu);
      ASSERT_FALSE(done.has_value()) << cpu;
      EXPECT_EQ(done.error().code(), ErrorCode::InvalidArgument);
    }
    EXPECT_FALSE(set_thread_affinity({}).has_value());
    EXPECT_FALSE(set_thread_affinity({0, 777}).has_value()) << "one that exists does not make up for one that does not";
    EXPECT_EQ(thread_affinity().value(), before.value()) << "a refusal changes nothing";
  });
}

TEST(ThreadingTest, BigAndLittle) {
  in_thread([] {
    const auto topology = read_topology();
    ASSERT_OK(topology);
    // Where whoever started this knows the machine (tools/test-aarch64), it must be seen as it is.
    if (const char* big_ones = std::getenv("VMP_TEST_PERFORMANCE")) {
      EXPECT_EQ(topology->performance.to_string(), big_ones);
      EXPECT_EQ(topology->efficiency.to_string(), std::getenv("VMP_TEST_EFFICIENCY"));
    }
    const unsigned first = topology->allowed.list().front();
    ASSERT_OK(set_thread_cpu(first));
    ASSERT_OK(set_thread_affinity_big());
    const CpuSet big = thread_affinity().value();
    if (!topology->hybrid()) {
      EXPECT_EQ(big, topology->allowed) << "one kind of core: all allowed, also after pinning";
      ASSERT_OK(set_thread_affinity_little());
      EXPECT_EQ(thread_affinity().value(), topology->allowed);
      return;
    }
    EXPECT_EQ(big, (topology->performance & topology->allowed));
    EXPECT_TRUE(topology->performance.contains(current_cpu()));
    ASSERT_OK(set_thread_affinity_little());
    EXPECT_EQ(thread_affinity().value(), (topology->efficiency & topology->allowed));
    EXPECT_TRUE(topology->efficiency.contains(current_cpu()));
  });
}

TEST(ThreadingTest, Names) {
  in_thread([] {
    ASSERT_OK(set_thread_name("vcpu 0"));
    EXPECT_EQ(thread_name(), "vcpu 0");
    ASSERT_OK(set_thread_name("a name that is rather long"));
    EXPECT_EQ(thread_name().substr(0, 10), "a name tha");
  });
}

TEST(ThreadingTest, CpusOfOneGroup) {
  const CpuSet groups[] = {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}};
  EXPECT_EQ(within_one_group(*CpuSet::parse("0-11"), groups, 5), *CpuSet::parse("4-7")) << "where the thread is";
  EXPECT_EQ(within_one_group({1, 8, 9}, groups, 2), CpuSet{1});
  EXPECT_EQ(within_one_group({1, 8, 9}, groups, 5), (CpuSet{8, 9})) << "its own has none: the one with most";
  EXPECT_TRUE(within_one_group({}, groups, 5).empty());
}

struct Standing {  // Windows has only the level
  ThreadPriority priority;
  int policy;
  int level;  // the nice value; of others than SCHED_OTHER the static priority
};

#ifdef _WIN32
constexpr Standing kStandings[] = {{ThreadPriority::Low, 0, THREAD_PRIORITY_LOWEST},
                                   {ThreadPriority::Idle, 0, THREAD_PRIORITY_IDLE},
                                   {ThreadPriority::Normal, 0, THREAD_PRIORITY_NORMAL},
                                   {ThreadPriority::High, 0, THREAD_PRIORITY_HIGHEST},
                                   {ThreadPriority::Realtime, 0, THREAD_PRIORITY_TIME_CRITICAL}};
bool has(const Standing& standing) { return ::GetThreadPriority(::GetCurrentThread()) == standing.level; }
bool may_have(const Standing& /*standing*/) { return true; }
#else
constexpr Standing kStandings[] = {{ThreadPriority::Low, SCHED_OTHER, 10},
                                   {ThreadPriority::Idle, SCHED_IDLE, 0},
                                   {ThreadPriority::Normal, SCHED_OTHER, 0},
                                   {ThreadPriority::High, SCHED_OTHER, -10},
                                   {ThreadPriority::Realtime, SCHED_RR, 1}};
bool has(const Standing& standing) {
  if (::sched_getscheduler(0) != standing.policy) return false;
  if (standing.policy == SCHED_OTHER) return ::getpriority(PRIO_PROCESS, 0) == standing.level;
  sched_param parameter{};
  return ::sched_getparam(0, &parameter) == 0 && parameter.sched_priority == standing.level;
}
/// Asked of the kernel by a thread that starts from the same nice value.
bool may_have(const Standing& standing) {
  bool may = false;
  in_thread([&] {
    const sched_param parameter{.sched_priority = standing.policy == SCHED_OTHER ? 0 : standing.level};
    may = ::sched_setscheduler(0, standing.policy, &parameter) == 0 &&
          (standing.policy != SCHED_OTHER || ::setpriority(PRIO_PROCESS, 0, standing.level) == 0);
  });
  return may;
}
#endif

TEST(ThreadingTest, Priorities) {
  in_thread([] {
    for (const Standing& standing : kStandings) {
      const bool may = may_have(standing);
      const auto done = set_thread_priority(standing.priority);
      EXPECT_EQ(done.has_value(), may) << static_cast<int>(standing.priority);
      if (done) {
        EXPECT_TRUE(has(standing)) << static_cast<int>(standing.priority);
      } else {
        EXPECT_EQ(done.error().code(), ErrorCode::PermissionDenied) << done.error().message();
      }
    }
  });
}

}  // namespace
}  // namespace vm_platform
