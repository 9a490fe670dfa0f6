// One header has them all.
#include <gtest/gtest.h>

#include <vm_platform/vm_platform.hpp>

namespace {

namespace os_layer {
// NOLINTBEGIN(misc-unused-using-decls): that they are there is the test.
using vm_platform::barrier_acquire;
using vm_platform::barrier_full;
using vm_platform::barrier_release;
using vm_platform::host_arch;
using vm_platform::host_os;
using vm_platform::JitMemory;
using vm_platform::MappedMemory;
using vm_platform::measure;
using vm_platform::MemoryError;
using vm_platform::MemoryProtection;
using vm_platform::PlatformFeatures;
using vm_platform::PlatformInfo;
using vm_platform::PlatformPaths;
using vm_platform::register_sigsegv_handler;
using vm_platform::Result;
using vm_platform::set_thread_affinity;
using vm_platform::set_thread_affinity_big;
using vm_platform::set_thread_affinity_little;
using vm_platform::set_thread_cpu;
using vm_platform::SignalHandler;
using vm_platform::timestamp_ns;
using vm_platform::VmError;
// NOLINTEND(misc-unused-using-decls)
}  // namespace os_layer

TEST(UmbrellaTest, TheOsLayersNamesAreThereAndWork) {
  const auto [memory, ns] = os_layer::measure([] { return os_layer::MappedMemory::create_private(4096); });
  ASSERT_TRUE(memory.has_value());
  EXPECT_GT(ns, 0u);
  os_layer::barrier_full();
  EXPECT_EQ(memory->data()[0], std::byte{0});
}

}  // namespace
