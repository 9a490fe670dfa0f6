#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <memory>
#include <sstream>
#include <vm_platform/host_setup.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using test::FakeTree;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Setup : public testing::Test {
 protected:
  Setup() {
    tree.file("proc/cpuinfo", "vendor_id : GenuineIntel\n");
    tree.file("proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz-6 root=UUID=1234 ro quiet\n");
    tree.file("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
    tree.file("etc/group", "root:x:0:\nkvm:x:104:\n");
    tree.file("boot/grub/grub.cfg", "menu");
    tree.file("usr/sbin/grub-mkconfig", "for x in ${sysconfdir}/default/grub.d/*.cfg ; do\n");
    tree.file("usr/sbin/update-grub", "");
    options.root = tree.root();
    options.state = tree.root() / "state";
    options.run = [this](const std::vector<std::string>& command) {
      std::string line;
      for (const std::string& word : command) line += (line.empty() ? "" : " ") + word;
      ran.push_back(line);
      if (line == failing) return Result<void>(fail(ErrorCode::Io, "run", line, "it ended with status 1"));
      if (line == "update-grub") tree.file("boot/grub/grub.cfg", "menu" + read(kGrubFile));
      if (line.starts_with("kernel-install"))  // as kernel-install(8) has it, without a file in /usr/lib
        tree.file("boot/entry", read(there("etc/kernel/cmdline") ? "etc/kernel/cmdline" : "proc/cmdline"));
      if (line == "udevadm control --reload") tree.file("run/udev", read(kRules));
      return Result<void>{};
    };
  }
  [[nodiscard]] std::string read(const std::string& file) const {
    std::ifstream in(tree.root() / file);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  [[nodiscard]] bool there(const std::string& file) const { return std::filesystem::exists(tree.root() / file); }
  /// A host that systemd-boot starts, with one kernel.
  void use_systemd_boot() const {
    std::filesystem::remove_all(tree.root() / "boot/grub");
    tree.file("boot/loader/loader.conf", "");
    tree.file("boot/vmlinuz-6.1.0", "");
    tree.file("lib/modules/6.1.0/modules.dep", "");
  }
  /// Makes what is wanted, and then nothing is left to do.
  void make() {
    HostSetup host(options);
    const auto plan = host.plan();
    ASSERT_TRUE(plan) << plan.error().message();
    ran.clear();
    ASSERT_TRUE(host.apply(*plan));
    const auto rest = host.plan();
    EXPECT_TRUE(rest->files.empty() && rest->commands.empty());
  }
  /// What the boot menu and udev go by is what the files say now.
  void expect_all_told(int step) const {
    EXPECT_EQ(read("boot/grub/grub.cfg"), "menu" + read(kGrubFile)) << "step " << step;
    EXPECT_EQ(read("run/udev"), read(kRules)) << "step " << step;
  }
  static constexpr const char* kGrubFile = "etc/default/grub.d/vm-platform.cfg";
  static constexpr const char* kRules = "etc/udev/rules.d/70-vm-platform.rules";
  FakeTree tree;
  HostSetupOptions options;
  std::vector<std::string> ran;
  std::string failing;  ///< A command that fails.
};

TEST_F(Setup, ShowsThenMakesThenTakesBackExactly) {
  HostSetup host(options);
  const auto plan = host.plan();
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->boot_loader, BootLoader::Grub);
  EXPECT_THAT(plan->parameters, ElementsAre("intel_iommu=on", "iommu=pt"));
  EXPECT_EQ(plan->files.size(), 4U);
  EXPECT_FALSE(there("etc/default/grub.d/vm-platform.cfg")) << "planning changes nothing";
  ASSERT_TRUE(host.apply(*plan));
  EXPECT_THAT(read("etc/default/grub.d/vm-platform.cfg"),
              HasSubstr("GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on iommu=pt\"\n"));
  EXPECT_THAT(read("etc/modules-load.d/vm-platform.conf"), HasSubstr("vfio-pci\n"));
  EXPECT_THAT(read("etc/security/limits.d/vm-platform.conf"), HasSubstr("@kvm - memlock 16384\n"));
  EXPECT_THAT(read("etc/udev/rules.d/70-vm-platform.rules"), HasSubstr("GROUP=\"kvm\", MODE=\"0660\""));
  EXPECT_FALSE(there("etc/modprobe.d/vm-platform.conf")) << "no option was asked for";
  EXPECT_THAT(ran, ElementsAre("update-grub", "udevadm control --reload", "udevadm trigger --subsystem-match=vfio"));
  EXPECT_THAT(host.plan()->files, IsEmpty());
  ran.clear();
  ASSERT_TRUE(host.undo());
  for (const char* file : {"etc/default/grub.d/vm-platform.cfg", "etc/modules-load.d/vm-platform.conf",
                           "etc/security/limits.d/vm-platform.conf", "etc/udev/rules.d/70-vm-platform.rules"})
    EXPECT_FALSE(there(file)) << file;
  EXPECT_THAT(ran, ElementsAre("update-grub", "udevadm control --reload"));
  EXPECT_THAT(host.undo_plan()->files, IsEmpty());
}

TEST_F(Setup, SystemdBootsCommandLineIsExtendedAndPutBack) {
  use_systemd_boot();
  options.host_dma_untranslated = false;
  HostSetup host(options);
  ASSERT_TRUE(host.apply(*host.plan()));
  EXPECT_EQ(read("etc/kernel/cmdline"), "root=UUID=1234 ro quiet intel_iommu=on\n") << "from what the kernel was given";
  EXPECT_THAT(ran.front(), "kernel-install add 6.1.0 /boot/vmlinuz-6.1.0");
  ASSERT_TRUE(host.undo());
  EXPECT_FALSE(there("etc/kernel/cmdline"));
  tree.file("etc/kernel/cmdline", "root=/dev/sda1 rw");
  ASSERT_TRUE(host.apply(*host.plan()));
  EXPECT_EQ(read("etc/kernel/cmdline"), "root=/dev/sda1 rw intel_iommu=on\n");
  ASSERT_TRUE(host.undo());
  EXPECT_EQ(read("etc/kernel/cmdline"), "root=/dev/sda1 rw") << "without the newline that it did not have";
}

TEST_F(Setup, ParametersThatAreNoLongerWantedGo) {
  use_systemd_boot();
  make();
  const std::string with_both = "root=UUID=1234 ro quiet intel_iommu=on iommu=pt\n";
  EXPECT_EQ(read("etc/kernel/cmdline"), with_both);
  tree.file("proc/cmdline", "initrd=\\6.1.0\\initrd " + with_both);  // booted anew
  options.host_dma_untranslated = false;
  make();
  EXPECT_EQ(read("etc/kernel/cmdline"), "root=UUID=1234 ro quiet intel_iommu=on\n");
  EXPECT_THAT(ran, testing::Contains("kernel-install add 6.1.0 /boot/vmlinuz-6.1.0"));
  EXPECT_THAT(HostSetup(options).plan()->notes, testing::Contains(HasSubstr("runs with iommu=pt: reboot")));
  tree.file("proc/cpuinfo", "vendor_id : AuthenticAMD\n");  // nothing is wanted; what runs now must not come back
  options.host_dma_untranslated = true;
  make();
  options.host_dma_untranslated = false;
  make();
  EXPECT_THAT(read("etc/kernel/cmdline"), Not(HasSubstr("iommu=pt")));
  options.host_dma_untranslated = true;
  make();
  EXPECT_THAT(read("etc/kernel/cmdline"), HasSubstr("iommu=pt"));
  ASSERT_TRUE(HostSetup(options).undo());
  EXPECT_FALSE(there("etc/kernel/cmdline"));
}

TEST_F(Setup, ParametersThatAreNoLongerWantedGoFromALineOfPeoplesOwn) {
  use_systemd_boot();
  tree.file("etc/kernel/cmdline", "root=/dev/sda1 rw");
  make();
  EXPECT_EQ(read("etc/kernel/cmdline"), "root=/dev/sda1 rw intel_iommu=on iommu=pt\n");
  options.host_dma_untranslated = false;
  make();
  EXPECT_EQ(read("etc/kernel/cmdline"), "root=/dev/sda1 rw intel_iommu=on\n");
  tree.file("proc/cpuinfo", "vendor_id : AuthenticAMD\n");
  make();
  EXPECT_EQ(read("etc/kernel/cmdline"), "root=/dev/sda1 rw") << "nothing is wanted: as it was";
  ASSERT_TRUE(HostSetup(options).undo());
  tree.file("etc/kernel/cmdline", "iommu=pt root=/dev/sda1");
  tree.file("proc/cpuinfo", "vendor_id : GenuineIntel\n");
  make();
  EXPECT_EQ(read("etc/kernel/cmdline"), "iommu=pt root=/dev/sda1 intel_iommu=on\n") << "theirs stays";
}

TEST_F(Setup, BootFileGoesWhereNoParameterIsWanted) {
  tree.file("proc/cpuinfo", "vendor_id : AuthenticAMD\n");
  make();
  EXPECT_THAT(read("boot/grub/grub.cfg"), HasSubstr("iommu=pt"));
  options.host_dma_untranslated = false;
  make();
  EXPECT_THAT(ran, ElementsAre("update-grub"));
  EXPECT_FALSE(there(kGrubFile));
  EXPECT_EQ(read("boot/grub/grub.cfg"), "menu");
  options.host_dma_untranslated = true;
  options.boot_loader = BootLoader::Extlinux;
  make();
  EXPECT_THAT(read("etc/u-boot-menu/conf.d/vm-platform.conf"), HasSubstr("iommu=pt"));
  options.boot_loader = BootLoader::Grub;
  make();
  EXPECT_THAT(ran, ElementsAre("update-grub", "u-boot-update")) << "the other boot loader is told, too";
  EXPECT_FALSE(there("etc/u-boot-menu/conf.d/vm-platform.conf"));
  EXPECT_THAT(read("boot/grub/grub.cfg"), HasSubstr("iommu=pt"));
}

TEST_F(Setup, WhatSomebodyEditedIsLeftAlone) {
  HostSetup host(options);
  ASSERT_TRUE(host.apply(*host.plan()));
  tree.file("etc/modules-load.d/vm-platform.conf", "vfio-pci\nmine\n");
  const auto undone = host.undo();
  ASSERT_FALSE(undone);
  EXPECT_EQ(undone.error().code(), ErrorCode::Status);
  EXPECT_THAT(undone.error().message(), HasSubstr("modules-load.d/vm-platform.conf"));
  EXPECT_TRUE(there("etc/default/grub.d/vm-platform.cfg")) << "nothing was taken back by halves";
  EXPECT_EQ(host.plan().error().code(), ErrorCode::Status);
  EXPECT_EQ(read("etc/modules-load.d/vm-platform.conf"), "vfio-pci\nmine\n");
}

TEST_F(Setup, FilesOfOurNameThatAreNotOursAreLeftAlone) {
  tree.file("etc/udev/rules.d/70-vm-platform.rules", "# somebody's\n");
  EXPECT_EQ(HostSetup(options).plan().error().code(), ErrorCode::Status);
}

TEST_F(Setup, ChangedWishesKeepWhatIsGoneBackTo) {
  HostSetup first(options);
  ASSERT_TRUE(first.apply(*first.plan()));
  options.memlock_kib = 8;
  options.unsafe_interrupts = true;
  HostSetup second(options);
  const auto plan = second.plan();
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->files.size(), 2U) << "limits and module options";
  ASSERT_TRUE(second.apply(*plan));
  EXPECT_THAT(read("etc/modprobe.d/vm-platform.conf"), HasSubstr("allow_unsafe_interrupts=1"));
  ASSERT_TRUE(second.undo());
  EXPECT_FALSE(there("etc/security/limits.d/vm-platform.conf"));
  EXPECT_FALSE(there("etc/modprobe.d/vm-platform.conf"));
}

TEST_F(Setup, FileThatCannotBeWrittenPutsTheOthersBack) {
  // A folder where the file should be: the write fails also for root.
  tree.file("etc/udev/rules.d", "a file, so that nothing can be made below it");
  HostSetup host(options);
  const auto plan = host.plan();
  // Reading below a file is an error of its own kind; either way nothing may be left behind.
  if (plan) {
    EXPECT_FALSE(host.apply(*plan));
  }
  EXPECT_FALSE(there("etc/default/grub.d/vm-platform.cfg"));
  EXPECT_FALSE(there("etc/modules-load.d/vm-platform.conf"));
  EXPECT_THAT(host.undo_plan()->files, IsEmpty());
}

TEST_F(Setup, HalfWayDeadSetUpIsTakenBack) {
  HostSetup host(options);
  ASSERT_TRUE(host.apply(*host.plan()));
  // As if the tool had died after the journal and before the last file.
  std::filesystem::remove(tree.root() / "etc/udev/rules.d/70-vm-platform.rules");
  ASSERT_TRUE(host.undo());
  EXPECT_FALSE(there("etc/default/grub.d/vm-platform.cfg"));
}

/// Runs `change` in a process of its own that is killed before step `left`; whether it got that far.
template <typename Change>
bool killed_before(HostSetupOptions options, int left, Change change) {
  const pid_t child = ::fork();
  if (child == 0) {
    options.on_step = [&](std::string_view) {
      if (left-- == 0) ::raise(SIGKILL);
    };
    HostSetup host(options);
    ::_exit(change(host) ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  if (WIFSIGNALED(status)) return true;
  EXPECT_EQ(WEXITSTATUS(status), 0);
  return false;
}

TEST_F(Setup, KilledAtAnyStepItIsTakenBackOrGoneOnWith) {
  const auto apply = [](HostSetup& host) { return host.apply(*host.plan()).has_value(); };
  const auto undo = [](HostSetup& host) { return host.undo().has_value(); };
  HostSetupOptions first = options, second = options, third = options;
  second.memlock_kib = 8;
  second.unsafe_interrupts = true;
  second.host_dma_untranslated = false;
  third.memlock_kib = 9;
  const auto made = [&](const HostSetupOptions& wishes, int step) {
    HostSetup host(wishes);
    ASSERT_TRUE(apply(host)) << "step " << step;
    const auto plan = host.plan();
    EXPECT_TRUE(plan->files.empty() && plan->commands.empty()) << "step " << step;
    expect_all_told(step);
  };
  const auto nothing_is_left = [&](int step) {
    const auto undone = HostSetup(options).undo();
    EXPECT_TRUE(undone) << "step " << step << ": " << undone.error().message();
    for (const char* file : {"etc/default/grub.d", "etc/modules-load.d", "etc/modprobe.d", "etc/security/limits.d",
                             "etc/udev/rules.d", "state"})
      EXPECT_THAT(list_directory(tree.root() / file), IsEmpty()) << "step " << step << ": " << file;
    expect_all_told(step);
  };
  int steps = 0;
  for (bool more = true; more; ++steps) {
    // The very first set-up cut short at every step, and gone on with; then taking back, cut short too.
    more = killed_before(first, steps, apply);
    made(first, steps);
    more = killed_before(options, steps, undo) || more;
    nothing_is_left(steps);
    // The first wishes whole, the second ones cut short.
    made(first, steps);
    more = killed_before(second, steps, apply) || more;
    if (steps > 1)  // as if killed within a step
      tree.file("etc/modprobe.d/vm-platform.conf.vm-platform-new", "half");
    nothing_is_left(steps);
    // After that, the same again, or the third ones, before and after which all is explained.
    made(first, steps);
    killed_before(second, steps, apply);
    made(second, steps);
    made(first, steps);
    killed_before(second, steps, apply);
    HostSetup last(third);
    const auto plan = last.plan();
    ASSERT_TRUE(plan) << "step " << steps << ": " << plan.error().message();
    killed_before(third, 2, apply);
    made(third, steps);
    EXPECT_THAT(read("etc/security/limits.d/vm-platform.conf"), HasSubstr("memlock 9\n"));
    killed_before(options, steps, undo);
    nothing_is_left(steps);
  }
  EXPECT_GE(steps, 9) << "the record, four files, three commands, the record";
}

TEST_F(Setup, KilledWhileTakingBackNoKernelKeepsWhatTheRunningOneWasGiven) {
  use_systemd_boot();
  const std::string own = read("proc/cmdline");
  bool more = true;
  for (int step = 0; more; ++step) {
    tree.file("proc/cmdline", own);
    make();
    tree.file("proc/cmdline", read("boot/entry"));  // booted anew
    more = killed_before(options, step, [](HostSetup& host) { return host.undo().has_value(); });
    ASSERT_TRUE(HostSetup(options).undo());
    EXPECT_EQ(read("boot/entry"), "root=UUID=1234 ro quiet\n") << "step " << step;
    EXPECT_FALSE(there("etc/kernel/cmdline"));
    EXPECT_FALSE(there("state/setup.json"));
  }
}

TEST_F(Setup, CommandThatFailedIsRunNextTime) {
  for (const char* command : {"update-grub", "udevadm control --reload"}) {
    HostSetup host(options);
    failing = command;
    const auto made = host.apply(*host.plan());
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().message(), HasSubstr("once more"));
    const auto rest = host.plan();
    EXPECT_THAT(rest->files, IsEmpty());
    EXPECT_THAT(rest->commands, testing::Contains(ElementsAre("update-grub")));
    EXPECT_THAT(rest->notes, testing::Contains(HasSubstr("have not all run")));
    failing.clear();
    ASSERT_TRUE(host.apply(*rest));
    expect_all_told(0);
    EXPECT_THAT(host.plan()->commands, IsEmpty());
    EXPECT_THAT(host.plan()->notes, Not(testing::Contains(HasSubstr("have not all run"))));
    failing = command;
    ASSERT_FALSE(host.undo());
    EXPECT_THAT(host.undo_plan()->notes, testing::Contains(HasSubstr("have not all run")));
    failing.clear();
    ASSERT_TRUE(host.undo());
    expect_all_told(0);
    EXPECT_THAT(host.undo_plan()->commands, IsEmpty());
  }
}

TEST_F(Setup, CommandsOfAnotherRootAreRunOnceItIsEntered) {
  HostSetupOptions outside = options;
  outside.run = nullptr;
  HostSetup from_outside(outside), inside(options);
  ASSERT_TRUE(from_outside.apply(*from_outside.plan()));
  EXPECT_TRUE(there(kGrubFile));
  EXPECT_EQ(inside.plan()->commands.size(), 3U);
  ASSERT_TRUE(inside.apply(*inside.plan()));
  expect_all_told(0);
  ASSERT_TRUE(from_outside.undo());
  EXPECT_FALSE(there(kGrubFile));
  EXPECT_THAT(inside.undo_plan()->commands, testing::Contains(ElementsAre("update-grub")));
  ASSERT_TRUE(inside.undo());
  expect_all_told(0);
  EXPECT_FALSE(there("state/setup.json"));
}

TEST_F(Setup, SaysWhatItCannotDo) {
  tree.file("usr/sbin/grub-mkconfig", "does not read that folder");
  EXPECT_THAT(HostSetup(options).plan().error().message(), HasSubstr("grubby"));
  std::filesystem::remove(tree.root() / "usr/sbin/grub-mkconfig");
  tree.file("boot/loader/loader.conf", "");
  EXPECT_THAT(HostSetup(options).plan().error().message(), HasSubstr("--boot-loader"));
  tree.file("sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f",
            std::string("\6\0\0\0s\0y\0s\0t\0e\0m\0d\0-\0b\0o\0o\0t\0 \0002\0005\0\0\0", 36));
  EXPECT_EQ(HostSetup(options).plan()->boot_loader, BootLoader::SystemdBoot) << "the firmware knows";
}

TEST_F(Setup, GroupThatIsMissingIsMadeAndTakenBack) {
  options.group = "guests";
  HostSetup host(options);
  ASSERT_TRUE(host.apply(*host.plan()));
  EXPECT_THAT(ran, testing::Contains("groupadd --system guests"));
  tree.file("etc/group", "kvm:x:104:\nguests:x:999:\n");
  ran.clear();
  EXPECT_THAT(host.plan()->commands, IsEmpty());
  ASSERT_TRUE(host.undo());
  EXPECT_THAT(ran, testing::Contains("groupdel guests"));
}

TEST_F(Setup, HostThatHasItsParametersIsNotGivenThemTwice) {
  tree.file("proc/cmdline", "root=UUID=1 intel_iommu=on iommu=pt\n");
  const auto plan = HostSetup(options).plan();
  for (const FileChange& change : plan->files) EXPECT_THAT(change.file.string(), Not(HasSubstr("grub")));
  make();
  EXPECT_FALSE(there(kGrubFile));
  tree.file("proc/cpuinfo", "vendor_id : AuthenticAMD\n");
  EXPECT_THAT(HostSetup(options).plan()->parameters, ElementsAre("iommu=pt"));
}

TEST(UnifiedDiff, AsDiffWritesIt) {
  const FileChange change{"/f", "a\nb\nc\nd\ne\nf\ng\n", "a\nb\nc\nd\nE\nf\ng\n", {}};
  EXPECT_EQ(unified_diff(change), "--- /f\n+++ /f\n@@ -2,6 +2,6 @@\n b\n c\n d\n-e\n+E\n f\n g\n");
  EXPECT_EQ(unified_diff({"/f", std::nullopt, "a\n", {}}), "--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n");
  EXPECT_EQ(unified_diff({"/f", "a\n", std::nullopt, {}}), "--- /f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n");
  EXPECT_EQ(unified_diff({"/f", "a\n", "a\n", {}}), "");
}

}  // namespace
}  // namespace vm_platform
