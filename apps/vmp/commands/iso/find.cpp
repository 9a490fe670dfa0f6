#include <memory>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

struct Options : ImageOptions {
  std::string pattern = "**";
  std::string below = "/";
  std::string type;
  bool details = false, zero = false;
};

bool wanted(const Options& options, std::string_view path, const IsoEntry& entry) {
  if (options.type == "f" && !entry.is_file()) return false;
  if (options.type == "d" && !entry.is_directory()) return false;
  if (options.type == "l" && !entry.is_symlink()) return false;
  // A pattern without a slash is for the name alone, as with `find -name`.
  const bool whole_path = options.pattern.find('/') != std::string::npos;
  const std::string_view pattern =
      options.pattern.starts_with('/') ? std::string_view(options.pattern).substr(1) : options.pattern;
  return iso_glob_match(pattern, whole_path ? path : std::string_view(entry.name));
}

int run(const Options& options) {
  auto image = open_image(options);
  if (!image) return report(image.error());
  auto top = image->find(options.below);
  if (!top) return report(top.error());
  Output out;
  if (options.json) {
    out.put("{\"image\":");
    out.json(options.image);
    out.put(",\"entries\":[");
  }
  std::string prefix = path_from_root(options.below);
  if (!prefix.empty()) prefix += '/';
  int status = kDone;
  bool first = true;
  std::string path;
  IsoEntry entry;
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
    path = prefix;
    path += walk.path();
    if (!wanted(options, path, entry)) continue;
    if (options.json) {
      if (!first) out.put(',');
      first = false;
      put_json_entry(out, path, entry);
      continue;
    }
    if (options.details) {
      put_long_entry(out, path, entry);
    } else {
      out.name(path);
    }
    out.put(options.zero ? std::string_view("\0", 1) : "\n");
  }
  if (options.json) out.put("]}\n");
  return out.finish(status);
}

}  // namespace

void add_find(CLI::App& iso, Action& action) {
  auto* command = iso.add_subcommand("find", "Find names in an image");
  auto options = std::make_shared<Options>();
  add_image_options(*command, *options);
  command->add_option("pattern", options->pattern, "Shell pattern; with a / for the whole path, without for the name")
      ->type_name("PATTERN");
  command->add_option("--in", options->below, "Only below this directory")->type_name("PATH");
  command->add_option("--type", options->type, "f (files), d (directories) or l (symlinks)")
      ->check(CLI::IsMember({"f", "d", "l"}))
      ->type_name("TYPE");
  command->add_flag("-l,--long", options->details, "With all details");
  command->add_flag("-0,--null", options->zero, "End each path with a zero byte, for xargs -0");
  command->footer(
      "* and ? do not match /, ** does; [a-z] is a set.\nExamples:\n  vmp iso find debian.iso '*.deb'\n"
      "  vmp iso find debian.iso 'dists/**/Release' --type f\n  vmp iso find debian.iso 'vmlinuz*' -l");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace vm_platform::vmp::iso
