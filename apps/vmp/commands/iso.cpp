// vmp iso: looks into disc images. Its subcommands are files in iso/.
#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp {

void add_iso(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("iso", "Look into disc images: list, read, extract, verify, boot entries");
  command->require_subcommand(1);
  command->footer(
      "Reads ISO 9660 with Joliet, Rock Ridge, El Torito and zisofs; nothing is mounted and no privileges are needed.\n"
      "Examples:\n"
      "  vmp iso info debian.iso                what it is and what it boots\n"
      "  vmp iso ls -lR debian.iso              everything in it\n"
      "  vmp iso cat debian.iso README.txt      one file\n"
      "  vmp iso extract debian.iso -C target   all of it, safely\n"
      "  vmp iso verify debian.iso              every inconsistency, with its byte offset");
  iso::add_info(*command, action);
  iso::add_ls(*command, action);
  iso::add_tree(*command, action);
  iso::add_cat(*command, action);
  iso::add_find(*command, action);
  iso::add_boot(*command, action);
  iso::add_extract(*command, action);
  iso::add_verify(*command, action);
}

}  // namespace vm_platform::vmp
