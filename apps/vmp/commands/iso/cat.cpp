#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

#include <memory>
#include <utility>
#include <vector>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

struct Options : ImageOptions {
  std::vector<std::string> paths;
};

int run(const Options& options) {
  auto image = open_image(options);
  if (!image) return report(image.error());
#ifdef _WIN32
  ::_setmode(1, _O_BINARY);
#endif
  // What is wrong with the arguments is said before anything is written.
  std::vector<IsoEntry> files;
  for (const std::string& path : options.paths) {
    auto file = image->find(path);
    if (!file) return report(file.error());
    if (file->is_directory()) {
      return report(VmError(ErrorCode::InvalidArgument, "read", "'" + path + "'", "is a directory")
                        .with_hint("`vmp iso extract` takes whole directories"));
    }
    files.push_back(std::move(*file));
  }
  for (const IsoEntry& file : files) {
    if (auto written = image->copy_to_descriptor(file, 1); !written) {
      (void)report(written.error());
      return kFailed;
    }
  }
  return kDone;
}

}  // namespace

void add_cat(CLI::App& iso, Action& action) {
  auto* command = iso.add_subcommand("cat", "Write files of an image to standard output");
  auto options = std::make_shared<Options>();
  add_image_options(*command, *options);
  command->remove_option(command->get_option("--json"));
  command->add_option("path", options->paths, "Files in the image")->required()->type_name("PATH");
  command->add_flag("--stored", options->stored, "zisofs and sparse files as they are stored");
  command->footer(
      "Symbolic links lead within the image.\nExamples:\n  vmp iso cat debian.iso README.txt\n"
      "  vmp iso cat debian.iso /install.amd/vmlinuz > vmlinuz");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace vm_platform::vmp::iso
