// vmp: the command-line tool. Each subcommand is a file in commands/.
#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vm_platform/passthrough.hpp>

#include "apps/vmp/command.hpp"
#include "apps/vmp/standard_output.hpp"
#include "apps/vmp/text.hpp"

namespace vm_platform::vmp {

int exit_status(const VmError& error) {
  if (error.detail() == PassthroughError::RolledBack) return kRolledBack;
  if (error.detail() == PassthroughError::RollbackFailed || error.detail() == PassthroughError::Stuck) return kFailed;
  if (error.detail() == PassthroughError::NoIommu || error.detail() == PassthroughError::NoVfio) return kRefused;
  switch (error.code()) {
    case ErrorCode::InvalidArgument:
    case ErrorCode::NotFound:
    case ErrorCode::Corrupt:
    case ErrorCode::Unsupported: return kUsage;
    case ErrorCode::PermissionDenied:
    case ErrorCode::Status:
    case ErrorCode::Busy: return kRefused;
    default: return kFailed;
  }
}

void complain(std::string_view text) {
  std::fputs(("vmp: " + printable(text) + "\n").c_str(), stderr);  // never throws, also on a closed pipe
}

int report(const VmError& error) {
  complain(error.message());
  return exit_status(error);
}

namespace {

struct Command {
  std::string_view name;
  void (*add)(CLI::App& app, Action& action);
};
constexpr Command kCommands[] = {
    {"version", add_version}, {"run", add_run},     {"host", add_host},   {"doctor", add_doctor},
    {"iso", add_iso},         {"pci", add_pci},     {"iommu", add_iommu}, {"passthrough", add_passthrough},
    {"npu", add_npu},         {"sriov", add_sriov}, {"gpu", add_gpu},
};

/// "bogus is no command of vmp pci", where that is what CLI11 means by a missing subcommand.
std::string unknown_command(const CLI::App& app) {
  std::string path = app.get_name();
  const CLI::App* deepest = &app;
  while (!deepest->get_subcommands().empty()) {
    deepest = deepest->get_subcommands().front();
    path += " " + deepest->get_name();
  }
  const auto left = app.remaining(true);
  if (left.empty() || deepest->get_require_subcommand_min() == 0) return {};
  return left.front() + " is no command of " + path + "; `" + path + " --help` lists them";
}

/// Prints help, or what is wrong with the command line.
int parse_failed(const CLI::App& app, const CLI::ParseError& error) {
  std::ostringstream help, complaint;
  const int status = app.exit(error, help, complaint);
  std::fputs(help.str().c_str(), stdout);
  std::fputs(printable_lines(complaint.str()).c_str(), stderr);
  return status == 0 ? kDone : kUsage;
}

int run(int argc, char** argv) {
  CLI::App app("Make, run and inspect virtual machines, and hand real devices to them.", "vmp");
  app.require_subcommand(1);
  app.set_version_flag("--version", "vmp " VM_PLATFORM_VERSION);
  app.footer("`vmp COMMAND --help` explains a command and shows examples.");
  Action action;
  const std::string_view wanted = argc > 1 ? argv[1] : "";
  const bool known = std::ranges::find(kCommands, wanted, &Command::name) != std::end(kCommands);
  // Describing all commands takes longer than the quick ones run: where one is named, it is described alone.
  for (const Command& command : kCommands) {
    if (!known || command.name == wanted) command.add(app, action);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    if (const std::string text = unknown_command(app); !text.empty()) {
      complain(text);
      return kUsage;
    }
    return parse_failed(app, error);
  } catch (const CLI::ParseError& error) {
    return parse_failed(app, error);
  }
  return action();
}

}  // namespace
}  // namespace vm_platform::vmp

int main(int argc, char** argv) {
  using namespace vm_platform::vmp;
  // To a guest's console a closed output is one that nobody reads.
  if (argc < 2 || std::string_view(argv[1]) != "run") hold_closed_descriptors();
  int status = kFailed;
  try {
    status = run(argc, argv);
  } catch (const std::system_error& error) {
    if (std::ferror(stdout) != 0) return lost_output(error.code().value());  // of fmt::print
    complain(error.what());
  } catch (const std::exception& error) {
    complain(error.what());
  }
  return finish_output(status);
}
