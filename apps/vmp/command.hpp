// How a subcommand of `vmp` is written: a function that adds itself to the command line, one file each in commands/.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string_view>
#include <vm_platform/core.hpp>

namespace vm_platform::vmp {

/// Exit statuses that all commands share (docs/exit-status.md).
enum ExitStatus : int { kDone = 0, kFailed = 1, kUsage = 2, kRefused = 3, kRolledBack = 4 };

/// The exit status that tells a script what kind of error this was.
int exit_status(const VmError& error);
/// Prints `vmp: text` on stderr; control characters in it, newlines too, are escaped.
void complain(std::string_view text);
/// Complains of the error and returns the exit status that fits.
int report(const VmError& error);

/// A command's body, run after the whole command line has been read; returns the exit status.
using Action = std::function<int()>;

/// Each adds its subcommand (options, help) to `app` and sets `action` when the user chose it.
void add_version(CLI::App& app, Action& action);
void add_run(CLI::App& app, Action& action);
void add_host(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_iso(CLI::App& app, Action& action);
void add_pci(CLI::App& app, Action& action);
void add_iommu(CLI::App& app, Action& action);
void add_passthrough(CLI::App& app, Action& action);
void add_npu(CLI::App& app, Action& action);
void add_sriov(CLI::App& app, Action& action);
void add_gpu(CLI::App& app, Action& action);

}  // namespace vm_platform::vmp
