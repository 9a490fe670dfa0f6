#include <memory>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

struct Options : ImageOptions {
  std::string path = "/";
  std::size_t depth = SIZE_MAX;
};

int run(const Options& options) {
  auto image = open_image(options);
  if (!image) return report(image.error());
  auto top = image->find(options.path);
  if (!top) return report(top.error());
  Output out;
  const bool json = options.json;
  if (json) {
    out.put("{\"image\":");
    out.json(options.image);
    out.put(",\"entries\":[");
  } else {
    out.name(options.path);
    out.put('\n');
  }
  int status = kDone;
  std::uint64_t directories = 0, others = 0;
  IsoEntry entry;
  std::string path, prefix = path_from_root(options.path);
  if (!prefix.empty()) prefix += '/';
  IsoWalk walk(*image, *top);
  while (!out.failed()) {
    auto more = walk.next(entry);
    if (!more) {
      out.flush();
      (void)report(more.error());
      status = kFailed;
      continue;
    }
    if (!*more) break;
    if (walk.depth() + 1 >= options.depth) walk.skip();
    if (json) {
      if (directories + others > 0) out.put(',');
      path = prefix;
      path += walk.path();
      put_json_entry(out, path, entry);
    } else {
      for (std::size_t i = 0; i < walk.depth() + 1; ++i) out.put("    ");
      out.name(entry.name);
      if (entry.is_directory()) out.put('/');
      if (entry.is_symlink()) {
        out.put(" -> ");
        out.name(entry.symlink_target);
      }
      out.put("\n");
    }
    ++(entry.is_directory() ? directories : others);
  }
  if (json) {
    out.put("]}\n");
  } else {
    out.put('\n');
    put_count(out, directories, " directories, ");
    put_count(out, others, " files\n");
  }
  return out.finish(status);
}

}  // namespace

void add_tree(CLI::App& iso, Action& action) {
  auto* command = iso.add_subcommand("tree", "Show an image's tree, indented");
  auto options = std::make_shared<Options>();
  add_image_options(*command, *options);
  command->add_option("path", options->path, "Where to begin (default /)")->type_name("PATH");
  command->add_option("-L,--depth", options->depth, "Levels to show, 1 or more")
      ->check(whole_number(1, UINT32_MAX))
      ->type_name("N");
  command->footer("Examples:\n  vmp iso tree debian.iso -L 2\n  vmp iso tree debian.iso /isolinux");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace vm_platform::vmp::iso
