#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>
#include <vm_platform/threading.hpp>

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

TEST(ThreadingTest, Priorities) {
  in_thread([] {
    ASSERT_OK(set_thread_priority(ThreadPriority::Low));
    ASSERT_OK(set_thread_priority(ThreadPriority::Idle));
    for (const auto priority : {ThreadPriority::Normal, ThreadPriority::High, ThreadPriority::Realtime}) {
      const auto done = set_thread_priority(priority);
      EXPECT_TRUE(done.has_value() || done.error().code() == ErrorCode::PermissionDenied) << done.error().message();
    }
  });
}

}  // namespace
}  // namespace vm_platform
