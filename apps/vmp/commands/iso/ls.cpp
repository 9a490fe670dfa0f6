#include <memory>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

struct Options : ImageOptions {
  std::vector<std::string> paths;
  bool details = false, recursive = false;
};

/// Lists images as `ls` lists directories. What is damaged is said on stderr; the rest is listed.
class Lister {
 public:
  Lister(const SimpleIso9660& iso, const Options& options) : iso_(iso), options_(options) {}

  int run(const std::vector<std::string>& paths) {
    if (options_.json) {
      out_.put("{\"image\":");
      out_.json(options_.image);
      out_.put(",\"names\":");
      out_.json(to_string(iso_.volume().names));
      out_.put(",\"entries\":[");
    }
    for (const std::string& path : paths) {
      // As ls(1): with details a link is shown itself, unless a / after it asks for what it leads to.
      const bool itself = (options_.details || options_.json) && !path.ends_with('/');
      auto top = iso_.find(path, itself ? IsoFollow::No : IsoFollow::Yes);
      if (!top) {
        worst(report(top.error()));
        continue;
      }
      if (top->is_directory()) {
        const std::string shown = path_from_root(path);
        if (options_.recursive && !options_.json) {
          recurse(*top, shown);
        } else if (options_.json) {
          json_list(*top, shown);
        } else {
          if (paths.size() > 1) header(shown);
          list(*top);
        }
      } else {
        entry(options_.json ? path_from_root(path) : path, *top);
      }
    }
    if (options_.json) out_.put("]}\n");
    return out_.finish(status_);
  }

 private:
  void worst(int status) { status_ = std::max(status_, status); }

  void entry(std::string_view name, const IsoEntry& entry) {
    if (options_.json) {
      if (!first_) out_.put(',');
      first_ = false;
      put_json_entry(out_, name, entry);
      return;
    }
    if (options_.details) {
      put_long_entry(out_, name, entry);
    } else {
      out_.name(name);
    }
    out_.put("\n");
  }

  void header(std::string_view path) {
    if (!first_) out_.put('\n');
    first_ = false;
    out_.put('/');
    out_.name(path);
    out_.put(":\n");
  }

  /// Entries of one directory; true if there are directories among them.
  bool list(const IsoEntry& directory) {
    auto opened = iso_.open_directory(directory);
    if (!opened) return worst(report(opened.error())), false;
    bool any = false;
    while (!out_.failed()) {
      auto more = opened->next(entry_);
      if (!more) {
        worst(complain(more.error()));
        continue;
      }
      if (!*more) break;
      any = any || entry_.is_directory();
      entry(entry_.name, entry_);
    }
    return any;
  }

  int complain(const VmError& error) {
    out_.flush();
    (void)report(error);
    return kFailed;
  }

  void json_list(const IsoEntry& top, const std::string& shown) {
    IsoWalk walk(iso_, top);
    std::string path;
    while (!out_.failed()) {
      auto more = walk.next(entry_);
      if (!more) {
        worst(complain(more.error()));
        continue;
      }
      if (!*more) break;
      if (!options_.recursive) walk.skip();
      path = shown;
      if (!path.empty()) path += '/';
      path += walk.path();
      entry(path, entry_);
    }
  }

  /// Directory by directory, as `ls -R`: each is listed when the walk reaches it, so memory does not grow with the
  /// image.
  void recurse(const IsoEntry& top, const std::string& shown) {
    header(shown);
    if (!list(top)) return;
    IsoWalk walk(iso_, top);
    IsoEntry found;
    std::string path;
    while (!out_.failed()) {
      auto more = walk.next(found);
      if (!more) {
        if (more.error().operation() == "list")
          worst(complain(more.error()));  // damaged records were told of by `list`
        continue;
      }
      if (!*more) break;
      if (!found.is_directory()) continue;
      path = shown;
      if (!path.empty()) path += '/';
      path += walk.path();
      header(path);
      if (!list(found)) walk.skip();  // nothing below: no need to read it again
    }
  }

  const SimpleIso9660& iso_;
  const Options& options_;
  Output out_;
  IsoEntry entry_;
  bool first_ = true;
  int status_ = kDone;
};

}  // namespace

void add_ls(CLI::App& iso, Action& action) {
  auto* command = iso.add_subcommand("ls", "List directories of an image");
  auto options = std::make_shared<Options>();
  add_image_options(*command, *options);
  command->add_option("path", options->paths, "Directories or files in the image (default /)")->type_name("PATH");
  command->add_flag("-l,--long", options->details, "Mode, links, owner, size and time of each entry");
  command->add_flag("-R,--recursive", options->recursive, "Also everything below");
  command->footer(
      "Entries come in the order in which the image records them. With -l or --json a symbolic link is shown itself;\n"
      "LINK/ lists the directory that it leads to.\nExamples:\n"
      "  vmp iso ls debian.iso\n  vmp iso ls -l debian.iso /install.amd\n  vmp iso ls -lR --names joliet debian.iso");
  command->callback([options, &action] {
    action = [options] {
      auto image = open_image(*options);
      if (!image) return report(image.error());
      const std::vector<std::string> root{"/"};
      return Lister(*image, *options).run(options->paths.empty() ? root : options->paths);
    };
  });
}

}  // namespace vm_platform::vmp::iso
