// vmp: the command-line tool. Each subcommand is a file in commands/.
#include <cstdio>
#include <string>
#include <vm_platform/passthrough.hpp>

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp {

int exit_status(const VmError& error) {
  if (error.detail() == PassthroughError::RolledBack) return kRolledBack;
  if (error.detail() == PassthroughError::RollbackFailed) return kFailed;
  switch (error.code()) {
    case ErrorCode::InvalidArgument:
    case ErrorCode::NotFound:
    case ErrorCode::Corrupt:
    case ErrorCode::Unsupported: return kUsage;
    case ErrorCode::PermissionDenied:
    case ErrorCode::Busy: return kRefused;
    default: return kFailed;
  }
}

int report(const VmError& error) {
  std::fputs(("vmp: " + error.message() + "\n").c_str(), stderr);  // never throws, also on a closed pipe
  return exit_status(error);
}

namespace {

int run(int argc, char** argv) {
  CLI::App app("Make, run and inspect virtual machines, and hand real devices to them.", "vmp");
  app.require_subcommand(1);
  app.footer("`vmp COMMAND --help` explains a command and shows examples.");
  Action action;
  add_version(app, action);
  add_run(app, action);
  add_host(app, action);
  add_doctor(app, action);
  add_iso(app, action);
  add_pci(app, action);
  add_iommu(app, action);
  add_passthrough(app, action);
  add_npu(app, action);
  add_sriov(app, action);
  add_gpu(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  return action();
}

}  // namespace
}  // namespace vm_platform::vmp

int main(int argc, char** argv) {
  try {
    return vm_platform::vmp::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vmp: %s\n", error.what());
    return vm_platform::vmp::kFailed;
  }
}
