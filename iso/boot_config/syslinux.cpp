// isolinux / syslinux configurations: https://wiki.syslinux.org/wiki/index.php?title=Config
#include <algorithm>
#include <set>

#include "iso/boot_config/boot_config.hpp"

namespace vm_platform::iso {
namespace {

class Syslinux {
 public:
  Syslinux(ConfigFiles& files, const std::string& config, BootMenu& menu)
      : files_(files), config_(config), directory_(directory_of(config)), menu_(menu), first_(menu.entries.size()) {}

  void run() {
    read_file(config_, 0);
    finish_label();
    choose_default();
  }

 private:
  /// A label while it is being read.
  struct Label {
    std::string name, title, kernel, append, type;
    std::vector<std::string> initrds;
    bool has_append = false, is_default = false, disabled = false;
  };

  void read_file(const std::string& path, int depth) {
    if (depth > kMaxConfigDepth || ++files_read_ > 64) return;
    // A help screen leads back to the menu it came from: the entries are listed already.
    if (!read_.insert(path).second && in_other_config_ > 0) return;
    const auto content = files_.read(path);
    if (!content || !menu_.take(content->size())) return;
    std::string_view rest = *content;
    bool in_help = false;
    while (menu_.bytes_left != 0) {
      const auto line = take_line(rest);
      if (!line) break;
      std::string_view text = trimmed(*line);
      if (text.empty() || text.starts_with('#')) continue;
      const std::string word = lower(take_word(text));
      if (in_help) {
        in_help = word != "endtext";
      } else if (word == "text") {
        in_help = true;
      } else {
        directive(word, text, depth);
      }
    }
  }

  void directive(const std::string& word, std::string_view value, int depth) {
    if (word == "include") {
      read_file(resolve_path(directory_, value), depth + 1);
    } else if (word == "menu") {
      menu_directive(value, depth);
    } else if (word == "label") {
      finish_label();
      label_ = Label{};
      label_->name = value;
    } else if (word == "default") {
      if (in_other_config_ == 0) default_ = value;
    } else if (word == "ontimeout") {
      if (in_other_config_ == 0) on_timeout_ = value;
    } else if (word == "append" || word == "initrd") {
      if (word == "append") {
        (label_ ? label_->append : global_append_) = value == "-" ? std::string_view() : value;
        if (label_) label_->has_append = true;
      } else if (label_) {
        std::vector<std::string> names;
        (void)without_initrd("initrd=" + std::string(value), names);
        label_->initrds = std::move(names);
      }
    } else if (label_ &&
               (word == "kernel" || word == "linux" || word == "boot" || word == "bss" || word == "pxe" ||
                word == "fdimage" || word == "com32" || word == "comboot" || word == "config" || word == "localboot")) {
      label_->type = word;
      label_->kernel = value;
    }
  }

  void menu_directive(std::string_view value, int depth) {
    const std::string word = lower(take_word(value));
    if (word == "include") {
      read_file(resolve_path(directory_, take_word(value)), depth + 1);
    } else if (word == "begin") {
      finish_label();
      if (path_.size() < 64) path_.emplace_back(value);
    } else if (word == "end") {
      finish_label();
      if (!path_.empty()) path_.pop_back();
    } else if (word == "title") {
      if (!path_.empty() && !label_) path_.back() = std::string(value);
    } else if (label_ && word == "label") {
      label_->title = value;
      std::erase(label_->title, '^');
    } else if (label_ && word == "default") {
      label_->is_default = true;
    } else if (label_ &&
               (word == "disable" || word == "separator" || word == "exit" || word == "goto" || word == "quit")) {
      label_->disabled = true;
    }
  }

  void finish_label() {
    if (!label_) return;
    const Label label = std::move(*label_);
    label_.reset();
    if (label.name.empty() || label.disabled) return;
    // Each menu has a default of its own; the top menu's is what boots.
    if (label.is_default && path_.empty()) menu_default_ = label.name;
    const std::string& kernel = label.kernel.empty() ? label.name : label.kernel;
    const std::string& append = label.has_append ? label.append : global_append_;
    add(label.name, label.title.empty() ? label.name : label.title, label.type, kernel, append, label.initrds);
  }

  void add(const std::string& id, std::string_view title, const std::string& type, std::string_view kernel_and_args,
           std::string_view append, std::vector<std::string> initrds) {
    // The menu's path and the common arguments are repeated in each entry.
    std::size_t size = 2 * (id.size() + title.size() + kernel_and_args.size() + append.size());
    for (const std::string& part : path_) size += 2 * part.size();
    for (const std::string& initrd : initrds) size += directory_.size() + initrd.size();
    if (!menu_.take(size)) return;
    IsoBootEntry entry;
    entry.id = id;
    for (const std::string& part : path_) entry.title += part + " > ";
    entry.title += title;
    entry.loader = "syslinux";
    entry.config = config_;
    const std::string_view kernel = take_word(kernel_and_args);
    std::string arguments(kernel_and_args);
    if (!arguments.empty() && !append.empty()) arguments += ' ';
    arguments += append;
    const std::string name = lower(kernel.substr(std::min(kernel.rfind('/') + 1, kernel.size())));
    if (type == "localboot") {
      entry.protocol = IsoBootProtocol::Firmware;
      entry.problem = "boots from the next drive, through firmware";
    } else if (type == "config" || name == "menu.c32" || name == "vesamenu.c32") {
      submenu(type == "config" ? kernel : std::string_view(arguments), title);
      return;
    } else if (name == "mboot.c32") {
      multiboot(entry, arguments);
    } else if (type == "com32" || type == "comboot" || type == "bss" || type == "pxe" || type == "fdimage" ||
               type == "boot" || name.ends_with(".c32") || name.ends_with(".com") || name.ends_with(".cbt") ||
               name.ends_with(".bss") || name.ends_with(".bs") || name.ends_with(".0") || name.ends_with(".img") ||
               (name.ends_with(".bin") && type != "linux")) {
      entry.protocol = IsoBootProtocol::Firmware;
      entry.kernel = resolve_path(directory_, kernel);
      entry.problem = "is a boot program (" + std::string(kernel) + ") that needs firmware";
    } else {
      entry.kernel = resolve_path(directory_, kernel);
      entry.command_line = without_initrd(arguments, initrds);
      for (const std::string& initrd : initrds) entry.initrds.push_back(resolve_path(directory_, initrd));
    }
    (void)menu_.add(std::move(entry));
  }

  /// `mboot.c32 kernel arguments --- module arguments --- ...`
  void multiboot(IsoBootEntry& entry, std::string_view arguments) {
    entry.protocol = IsoBootProtocol::Multiboot;
    for (bool first = true; !arguments.empty(); first = false) {
      const std::size_t end = std::min(arguments.find("---"), arguments.size());
      std::string_view part = arguments.substr(0, end);
      arguments.remove_prefix(std::min(end + 3, arguments.size()));
      const std::string file = resolve_path(directory_, take_word(part));
      if (first) {
        entry.kernel = file;
        entry.command_line = part;
      } else {
        entry.initrds.push_back(file);
      }
    }
  }

  void submenu(std::string_view arguments, std::string_view title) {
    // "~" means the configuration that is already loaded.
    const std::string file(take_word(arguments));
    if (file.empty() || file == "~" || path_.size() >= kMaxConfigDepth) return;
    const std::vector<std::string> before = path_;  // the file may end menus that it did not begin
    path_.emplace_back(title);
    ++in_other_config_;
    read_file(resolve_path(directory_, file), static_cast<int>(path_.size()));
    finish_label();
    --in_other_config_;
    path_ = before;
  }

  void choose_default() {
    const auto find = [&](std::string_view id) -> std::optional<std::size_t> {
      for (std::size_t i = first_; i < menu_.entries.size(); ++i) {
        if (menu_.entries[i].id == id) return i;
      }
      return std::nullopt;
    };
    std::string_view command = default_;
    const std::string_view name = take_word(command);
    for (const std::string_view id : {std::string_view(menu_default_), name, std::string_view(on_timeout_)}) {
      if (id.empty() || menu_.default_entry) continue;
      menu_.default_entry = find(id);
    }
    // DEFAULT may be a command line of its own: a kernel and its arguments.
    if (!menu_.default_entry && !name.empty() && !lower(name).ends_with(".c32") &&
        files_.exists(resolve_path(directory_, name))) {
      const std::size_t count = menu_.entries.size();
      add(std::string(name), name, "", default_, global_append_, {});
      if (menu_.entries.size() > count) menu_.default_entry = count;
    }
  }

  ConfigFiles& files_;
  std::string config_, directory_;
  BootMenu& menu_;
  std::size_t first_;
  std::optional<Label> label_;
  std::string default_, on_timeout_, menu_default_, global_append_;
  std::vector<std::string> path_;
  std::set<std::string> read_;
  int files_read_ = 0;
  int in_other_config_ = 0;  ///< While reading what a label leads to: its defaults are its own.
};

}  // namespace

void read_syslinux(ConfigFiles& files, const std::string& config, BootMenu& menu) {
  Syslinux(files, config, menu).run();
}

}  // namespace vm_platform::iso
