#include <memory>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
void add_boot(CLI::App& iso, Action& action) { (void)iso, (void)action; }
}  // namespace vm_platform::vmp::iso
