#include <fmt/core.h>

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp {

void add_version(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("version", "Print the version");
  command->callback([&action] {
    action = [] {
      fmt::print("vmp {}\n", VM_PLATFORM_VERSION);
      return kDone;
    };
  });
}

}  // namespace vm_platform::vmp
