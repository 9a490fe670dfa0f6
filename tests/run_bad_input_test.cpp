// vmp run with every kind of bad input: one message that names the thing and the fix, exit status 2, before anything
// runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "tests/vmp_process.hpp"

namespace vm_platform::tests {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class BadInput : public ::testing::Test {
 protected:
  void expect_refused(std::vector<std::string> arguments, const ::testing::Matcher<std::string>& message) const {
    arguments.insert(arguments.begin(), "run");
    const Finished finished = run_vmp(arguments);
    EXPECT_EQ(finished.status, 2) << finished.err;
    EXPECT_THAT(finished.err, message);
    EXPECT_EQ(finished.out, "");
    EXPECT_EQ(std::ranges::count(finished.err, '\n'), 1) << "one message:\n" << finished.err;
  }
  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TemporaryFolder folder_;
  const std::string kernel_ = BARE_GUEST;
};

TEST_F(BadInput, Kernels) {
  expect_refused({"--kernel", "/no/such/kernel"}, AllOf(HasSubstr("/no/such/kernel"), HasSubstr("No such file")));
  expect_refused({"--kernel", folder_.path().string()}, HasSubstr("is a directory"));
  expect_refused({"--kernel", folder_.write("empty", "")}, HasSubstr("is empty"));
  expect_refused({"--kernel", folder_.write("text", "hello\n")}, HasSubstr("not a kernel"));
  expect_refused({"--kernel", folder_.write("script", "#!/bin/sh\n")}, HasSubstr("a script"));
  expect_refused({"--kernel", "/dev/zero"}, HasSubstr("not a regular file"));
  const std::string image = read(kernel_);
  ASSERT_GT(image.size(), 1000U);
  expect_refused({"--kernel", folder_.write("truncated", image.substr(0, image.size() - 64))}, HasSubstr("truncated"));
  std::string other = image;
  other[0x236] = 0;  // XLF_KERNEL_64
  expect_refused({"--kernel", folder_.write("32bit", other)}, HasSubstr("32-bit kernel"));
  std::string arm(128, '\0');
  arm.replace(56, 4, "ARM\x64");
  expect_refused({"--kernel", folder_.write("arm64", arm)}, HasSubstr("AArch64"));
}

TEST_F(BadInput, WhatDoesNotFit) {
  expect_refused({"--kernel", kernel_, "--memory", "4M"}, AllOf(HasSubstr("kernel"), HasSubstr("--memory")));
  const std::string large = folder_.write("initrd", "x");
  std::filesystem::resize_file(large, 600 << 20);
  expect_refused({"--kernel", kernel_, "--initrd", large},
                 AllOf(HasSubstr(large), HasSubstr("600.0 MiB"), HasSubstr("--memory")));
  expect_refused({"--kernel", kernel_, "--initrd", "/no/such/initrd"}, HasSubstr("/no/such/initrd"));
  expect_refused({"--kernel", kernel_, "--cmdline", std::string(3000, 'x')}, HasSubstr("3000 characters"));
}

TEST_F(BadInput, MemoryAndCpus) {
  for (const char* size : {"0", "-1", "lots", "99999999999999999999", "12X"})
    expect_refused({"--kernel", kernel_, "--memory=" + std::string(size)}, HasSubstr("--memory"));
  expect_refused({"--kernel", kernel_, "--memory", "900T"}, HasSubstr("--memory"));
  expect_refused({"--kernel", kernel_, "--memory", "4096"}, HasSubstr("512M"));
  for (const char* cpus : {"0", "-1", "two", "1.5", "99999999999"})
    expect_refused({"--kernel", kernel_, "--cpus=" + std::string(cpus)}, HasSubstr("--cpus"));
  expect_refused({"--kernel", kernel_, "--cpus", "100000"}, HasSubstr("--cpus"));
}

TEST_F(BadInput, ConsolesAndEngines) {
  expect_refused({"--kernel", kernel_, "--console", "telephone"}, AllOf(HasSubstr("--console"), HasSubstr("stdio")));
  expect_refused({"--kernel", kernel_, "--console", "file:/no/such/folder/log"}, HasSubstr("/no/such/folder/log"));
  expect_refused({"--kernel", kernel_, "--console", "fd:77"}, HasSubstr("fd 77"));
  expect_refused({"--kernel", kernel_, "--serial2", "stdio"}, HasSubstr("--serial2"));
  expect_refused({"--kernel", kernel_, "--engine", "steam"}, AllOf(HasSubstr("--engine"), HasSubstr("soft")));
  expect_refused({"--kernel", kernel_, "--boot", "tape"}, HasSubstr("multiboot"));
  expect_refused({"--kernel", kernel_, "--json"}, HasSubstr("--json"));
}

TEST_F(BadInput, TheCommandLineItself) {
  EXPECT_EQ(run_vmp({"run"}).status, 2);
  EXPECT_EQ(run_vmp({"run", "--kernle", "x"}).status, 2);
  EXPECT_EQ(run_vmp({"run", "--kernel"}).status, 2);
  const Finished help = run_vmp({"run", "--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_THAT(help.out, AllOf(HasSubstr("Examples:"), HasSubstr("Ctrl-]"), HasSubstr("--console"), HasSubstr("122")));
}

}  // namespace
}  // namespace vm_platform::tests
