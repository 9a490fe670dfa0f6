// What a host needs once before devices can be handed out: kernel parameters, modules, limits, permissions. Shown as a
// difference first, made in files of its own where a tool reads a folder of them, and taken back exactly.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// Who puts the kernel's parameters together.
enum class BootLoader : std::uint8_t {
  Grub,         ///< /etc/default/grub.d/*.cfg and update-grub.
  SystemdBoot,  ///< /etc/kernel/cmdline and kernel-install.
  Extlinux,     ///< /etc/u-boot-menu/conf.d/*.conf and u-boot-update (Debian's u-boot-menu).
  None,         ///< Something else: the user adds the parameters.
};
inline constexpr std::array kBootLoaders = {BootLoader::Grub, BootLoader::SystemdBoot, BootLoader::Extlinux,
                                            BootLoader::None};
[[nodiscard]] std::string_view to_string(BootLoader loader) noexcept;

struct HostSetupOptions {
  std::filesystem::path root = "/";  ///< Where /etc, /boot, /lib, /proc and /sys are looked up.
  std::filesystem::path state = "/var/lib/vm-platform/setup";  ///< The journal; not below `root`.
  std::optional<BootLoader> boot_loader;                       ///< Found out where not given.
  /// Members of this group may use devices that are taken. It is made where there is none.
  std::string group = "kvm";
  /// Memory that a member may pin for devices, in KiB; a guest needs all of its RAM. Default: this host's RAM.
  std::optional<std::uint64_t> memlock_kib;
  /// Devices that stay with the host reach memory without translation: quicker, but not kept apart.
  bool host_dma_untranslated = true;
  /// For hosts without interrupt remapping: lets VFIO work although a guest could then raise any interrupt.
  bool unsafe_interrupts = false;
  /// Lets a physical function be taken and its virtual functions be made while it is (vfio-pci's enable_sriov).
  bool sriov_of_taken = false;
  /// Runs one command; null: as a program of this host. Where it is null and `root` is not "/" no command is run: the
  /// journal keeps that they are to come, and whoever enters the root makes or takes back once more.
  std::function<Result<void>(const std::vector<std::string>& command)> run;
  /// Called before each step, with a line for people; for progress.
  std::function<void(std::string_view)> on_step;
};

/// One file, before and after. Nothing means that it is not there.
struct FileChange {
  std::filesystem::path file;  ///< Below the root, as in "/etc/modules-load.d/vm-platform.conf".
  std::optional<std::string> before, after;
  std::string why;  ///< One line for people.
};

struct HostSetupPlan {
  BootLoader boot_loader = BootLoader::None;
  std::vector<std::string> parameters;             ///< Kernel parameters that the boot is to have.
  std::vector<FileChange> files;                   ///< Only those that change.
  std::vector<std::vector<std::string>> commands;  ///< To run afterwards, in order; those that an earlier run owes too.
  std::vector<std::string> notes;                  ///< What is left to do by hand, and what was found.
};

/// Plans, makes and takes back. Before the first file is changed all that is needed to take it back is on disk, and
/// that commands have to follow; until they all have run, each plan has them. A file that somebody edited since is left
/// alone and named: `Status`.
class HostSetup {
 public:
  explicit HostSetup(HostSetupOptions options = {});

  /// What is missing; no files and no commands where all is in place.
  [[nodiscard]] Result<HostSetupPlan> plan() const;
  /// Makes it so. Where a file cannot be written, those before it are put back; where a command fails the files stay
  /// and the error says so, because the next plan has the command again.
  Result<void> apply(const HostSetupPlan& plan);

  /// What taking back would change; no files and no commands where nothing was set up.
  [[nodiscard]] Result<HostSetupPlan> undo_plan() const;
  /// Takes back what `apply` made.
  Result<void> undo();

 private:
  [[nodiscard]] bool commands_run_here() const;
  Result<void> run_all(const std::vector<std::vector<std::string>>& commands) const;
  void step(const std::string& line) const;
  HostSetupOptions options_;
};

/// The difference as `diff -u` writes it, with three lines of context; empty where there is none.
[[nodiscard]] std::string unified_diff(const FileChange& change);

}  // namespace vm_platform
