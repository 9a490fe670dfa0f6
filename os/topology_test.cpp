#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>
#include <vm_platform/topology.hpp>

#include "os/fake_host.hpp"
#include "os/test_code.hpp"

#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#endif

namespace vm_platform {
namespace {

TEST(CpuSetTest, ListsRoundTrip) {
  for (const char* text : {"", "0", "0-3", "0-3,8,10-11", "63-64", "1023-1025,4095"}) {
    const auto set = CpuSet::parse(text);
    ASSERT_TRUE(set.has_value()) << text;
    EXPECT_EQ(set->to_string(), text);
  }
  EXPECT_EQ(CpuSet::parse("0-7:2/4\n")->to_string(), "0-1,4-5");
  for (const char* text : {"-", "3-1", "1,", ",1", "x", "0-3:1", "0-3:1/0", "99999999999", "1 2"})
    EXPECT_FALSE(CpuSet::parse(text).has_value()) << text;
}

TEST(CpuSetTest, SetsOfDifferentSize) {
  const CpuSet small{0, 1, 2}, large{1, 2, 2000};
  EXPECT_EQ((small & large), (CpuSet{1, 2}));
  EXPECT_EQ(large.without(small), CpuSet{2000});
  EXPECT_EQ(large.count(), 3u);
  CpuSet copy = large;
  copy.remove(2000);
  EXPECT_EQ(copy, (CpuSet{1, 2}));
  EXPECT_FALSE(small.contains(100000));
}

std::vector<Cpu> with_capacities(std::initializer_list<unsigned> capacities) {
  std::vector<Cpu> cpus;
  for (const unsigned capacity : capacities)
    cpus.push_back({.id = static_cast<unsigned>(cpus.size()), .capacity = capacity});
  return cpus;
}

std::string kinds(std::vector<Cpu> cpus) {
  classify_by_capacity(cpus);
  std::string text;
  for (const Cpu& cpu : cpus) text += cpu.kind == CoreKind::Performance ? 'P' : 'E';
  return text;
}

TEST(CoreKindTest, SplitsAtTheLargestGap) {
  EXPECT_EQ(kinds(with_capacities({1024, 1024, 446, 446})), "PPEE");
  EXPECT_EQ(kinds(with_capacities({160, 160, 498, 1024})), "EEPP");
  EXPECT_EQ(kinds(with_capacities({1024, 900, 350})), "PPE");
  EXPECT_EQ(kinds(with_capacities({1024, 1009, 1024})), "PPP") << "a favoured core is no kind of its own";
  EXPECT_EQ(kinds(with_capacities({1024})), "P");
  EXPECT_EQ(kinds(with_capacities({0, 0})), "PP");
  EXPECT_EQ(kinds({}), "");
}

TEST(TopologyTest, ThisHost) {
  const auto topology = read_topology();
  ASSERT_TRUE(topology.has_value()) << topology.error().message();
  EXPECT_GT(topology->allowed.count(), 0u);
  EXPECT_EQ((topology->allowed & topology->online), topology->allowed);
  EXPECT_EQ(topology->performance.count() + topology->efficiency.count(), topology->online.count());
  EXPECT_EQ(topology->cpus.size(), topology->online.count());
}

#ifdef __linux__

TEST(TopologyTest, BigLittleFromCapacity) {
  const FakeHost host;
  host.file("/sys/devices/system/cpu/online", "0-3");
  for (unsigned i = 0; i < 4; ++i) host.cpu(i, i < 2 ? 1024 : 512);
  const auto topology = read_topology(host.roots());
  ASSERT_TRUE(topology.has_value());
  EXPECT_EQ(topology->performance.to_string(), "0-1");
  EXPECT_EQ(topology->efficiency.to_string(), "2-3");
  EXPECT_EQ(topology->kinds_from, "cpu_capacity");
  EXPECT_TRUE(topology->hybrid());
}

TEST(TopologyTest, IntelHybridOfflineIsolatedAndCpuset) {
  const FakeHost host;
  host.file("/sys/devices/system/cpu/online", "0-6,8-15");  // 7 is offline
  host.file("/sys/devices/system/cpu/isolated", "3");
  host.file("/sys/devices/cpu_core/cpus", "0-7");
  host.file("/sys/devices/cpu_atom/cpus", "8-14");
  host.file("/sys/devices/cpu_lowpower/cpus", "15");
  host.file("/proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-15");
  host.file("/proc/self/cgroup", "0::/a/b");
  host.file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory");
  host.file("/sys/fs/cgroup/a/cpuset.cpus.effective", "2-9");
  for (unsigned i = 0; i < 16; ++i) host.cpu(i);
  const auto topology = read_topology(host.roots());
  ASSERT_TRUE(topology.has_value());
  EXPECT_EQ(topology->performance.to_string(), "0-6");
  EXPECT_EQ(topology->efficiency.to_string(), "8-15");
  EXPECT_EQ(topology->allowed.to_string(), "2,4-6,8-9");
}

TEST(TopologyTest, OnlyIsolatedOnesLeftAreAllowed) {
  const FakeHost host;
  host.file("/sys/devices/system/cpu/online", "0-3");
  host.file("/sys/devices/system/cpu/isolated", "2-3");
  host.file("/proc/self/status", "Cpus_allowed_list:\t2-3");
  EXPECT_EQ(read_topology(host.roots())->allowed.to_string(), "2-3");
}

TEST(TopologyTest, MoreThan1024CpusCachesAndNodes) {
  const FakeHost host;
  host.file("/sys/devices/system/cpu/online", "0-1535");
  host.file("/sys/devices/system/node/node0/cpulist", "0-767");
  host.file("/sys/devices/system/node/node1/cpulist", "768-1535");
  for (unsigned i = 1530; i < 1536; ++i) {
    const std::string cache = "/sys/devices/system/cpu/cpu" + std::to_string(i) + "/cache/index0";
    host.file(cache + "/level", "3");
    host.file(cache + "/type", "Unified");
    host.file(cache + "/size", "32768K");
    host.file(cache + "/coherency_line_size", "64");
    host.file(cache + "/shared_cpu_list", i < 1532 ? "1530-1531" : "1532-1535");
  }
  const auto topology = read_topology(host.roots());
  ASSERT_TRUE(topology.has_value());
  EXPECT_EQ(topology->cpus.size(), 1536u);
  EXPECT_EQ(topology->allowed.count(), 1536u);
  EXPECT_EQ(topology->cpus[1500].node, 1);
  ASSERT_EQ(topology->caches.size(), 2u) << "each cache once";
  EXPECT_EQ(topology->caches[0].size, 32 * kMiB);
  EXPECT_EQ(topology->caches[0].line, 64u);
}

TEST(TopologyTest, WithoutSysfsItIsAnError) {
  const FakeHost host;
  EXPECT_EQ(read_topology(host.roots()).error().code(), ErrorCode::NotFound);
}

TEST(TopologyTest, WhatCannotBeReadIsNotThere) {
  const FakeHost host;
  host.file("/sys/devices/system/cpu/online", "0-1");
  host.cpu(0);
  host.file("/sys/devices/system/cpu/isolated/folder", "in the place of a file");
  host.file("/sys/devices/system/node", "a file in the place of a folder");
  std::filesystem::create_symlink("/proc/self/mem", host.root() + "/sys/devices/system/cpu/cpu0/cpu_capacity");  // EIO
  const auto topology = read_topology(host.roots());
  ASSERT_TRUE(topology.has_value());
  EXPECT_TRUE(topology->isolated.empty());
  EXPECT_EQ(topology->cpus[0].capacity, 0u);
  EXPECT_EQ(topology->allowed.to_string(), "0-1");
}

#if !VMP_TEST_ASAN && !VMP_TEST_TSAN  // they cannot start where they may not ask
TEST(TopologyTest, WhereAffinityMayNotBeAskedFor) {
  const pid_t child = ::fork();
  if (child == 0) {  // from before its start on, as in a container
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_getaffinity, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
      ::_exit(2);
    ::execl("/proc/self/exe", "os_test", "--gtest_brief=1", "--gtest_filter=TopologyTest.ThisHost", nullptr);
    ::_exit(127);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}
#endif

TEST(TopologyTest, CgroupVersionOneCpuset) {
  const FakeHost host;
  host.file("/sys/devices/system/cpu/online", "0-7");
  host.file("/proc/self/cgroup", "5:cpuset:/job\n3:memory:/job\n0::/");
  host.file("/sys/fs/cgroup/cpuset/job/cpuset.cpus", "4-5");
  EXPECT_EQ(read_topology(host.roots())->allowed.to_string(), "4-5");
}

#endif

}  // namespace
}  // namespace vm_platform
