// Kernel parameters, put where the boot loader of a host takes them from.
#pragma once

#include <span>
#include <vm_platform/host_setup.hpp>

namespace vm_platform {

/// The first line of every file that is ours alone.
inline constexpr const char* kSetupHeader = "# Made by `vmp passthrough setup`, which also takes it back (--undo).\n";

/// The boot loader that started this host, or that its files are for. `Unsupported` where two could be meant.
[[nodiscard]] Result<BootLoader> find_boot_loader(const std::filesystem::path& root);

/// The file to change, without what it holds now; what it is to hold is nothing where no file is needed. `former` is
/// what systemd_boot_line() said before set-up came, where it did: parameters are added to that, so those that an
/// earlier set-up added are gone. `Unsupported` where the loader is there and does not read such files; the error says
/// what to do instead.
[[nodiscard]] Result<FileChange> place_parameters(BootLoader loader, std::span<const std::string> parameters,
                                                  const std::filesystem::path& root,
                                                  const std::optional<std::string>& former);
/// What kernel-install(8) starts kernels with now: /etc/kernel/cmdline, else the file in /usr/lib, else what the
/// running kernel was given, without what the boot loader adds by itself. `NotFound` where there is none of them.
[[nodiscard]] Result<std::string> systemd_boot_line(const std::filesystem::path& root);
/// The boot loader whose parameters this file holds; `None` for any other file.
[[nodiscard]] BootLoader loader_of(const std::filesystem::path& file);
/// The commands that bring a change of that file into the boot menu.
[[nodiscard]] std::vector<std::vector<std::string>> boot_loader_commands(BootLoader loader,
                                                                         const std::filesystem::path& root);

/// The content of a file below the root; nothing where it is not there.
[[nodiscard]] Result<std::optional<std::string>> read_if_there(const std::filesystem::path& root,
                                                               const std::filesystem::path& file);

}  // namespace vm_platform
