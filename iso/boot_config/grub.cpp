// GRUB configurations: the part of its shell that menus are written in (GRUB manual, chapters 6 and 16).
#include <algorithm>
#include <map>

#include "iso/boot_config/boot_config.hpp"
#include "iso/boot_config/grub_condition.hpp"
#include "iso/boot_config/grub_lexer.hpp"
#include "iso/boot_config/grub_scope.hpp"

namespace vm_platform::iso {
namespace {

using Words = std::vector<std::string>;

constexpr int kMaxCommands = 100'000, kMaxDepth = 48;
constexpr std::size_t kMaxVariable = 65536, kMaxVariables = 4096;

class Grub final : private GrubFileQuery {
 public:
  Grub(ConfigFiles& files, BootMenu& menu) : files_(files), menu_(menu), first_(menu.entries.size()) {}

  void run(const std::string& config) {
    config_ = config;
    // What GRUB's own start-up sets for an image that it was started from.
    const std::string here = "(cd0)" + directory_of(config);
    for (const auto& [name, value] :
         std::initializer_list<std::pair<const char*, std::string>>{{"root", "cd0"},
                                                                    {"prefix", here},
                                                                    {"cmdpath", here},
                                                                    {"grub_platform", "pc"},
                                                                    {"grub_cpu", "i386"},
                                                                    {"pager", ""},
                                                                    {"lang", "en_US"},
                                                                    {"menuentry_id_option", "--id"}})
      variables_.set(name, value);
    source(config);
    choose_default();
  }

 private:
  /// An entry of the menu whose commands are being run.
  struct Entry {
    IsoBootEntry boot;
    bool any = false;
  };

  void source(const std::string& path) {
    if (depth_ >= kMaxDepth) return;
    const auto content = files_.read(path);
    if (!content || !menu_.take(content->size())) return;
    // Kept until the end: functions refer to their tokens.
    sources_.push_back(std::make_unique<GrubTokens>(lex_grub(*content, menu_.bytes_left / sizeof(GrubToken))));
    const GrubTokens& tokens = *sources_.back();
    if (!menu_.take(tokens.size() * sizeof(GrubToken))) return;
    std::size_t at = 0;
    ++depth_;
    while (at < tokens.size()) {
      (void)list(tokens, at, tokens.size(), {}, true);
      if (at < tokens.size()) ++at;  // a stray `}` or `fi`
    }
    --depth_;
  }

  bool is_word(const GrubTokens& tokens, std::size_t at, std::string_view text) const {
    return tokens[at].kind == GrubToken::Kind::Word && tokens[at].text == text;
  }

  /// Past the limit nothing is read any more: every list ends at once, and what encloses it with it.
  [[nodiscard]] bool used_up() const { return commands_ > kMaxCommands || menu_.bytes_left == 0; }

  /// Runs commands from `at` up to one of `stops`, a closing brace or `end`; leaves `at` there. With `run` false only
  /// looks for the end.
  int list(const GrubTokens& tokens, std::size_t& at, std::size_t end, std::initializer_list<std::string_view> stops,
           bool run) {
    int status = 0;
    if (depth_ >= kMaxDepth) {
      at = end;
      return 1;
    }
    ++depth_;
    while (at < end) {
      if (!menu_.take(1) || used_up()) {
        at = end;
        status = 1;
        break;
      }
      const GrubToken& token = tokens[at];
      if (token.kind == GrubToken::Kind::End) {
        ++at;
        continue;
      }
      if (token.kind == GrubToken::Kind::Close) break;
      if (token.kind == GrubToken::Kind::Word && std::ranges::find(stops, token.text) != stops.end()) break;
      if (is_word(tokens, at, "if")) {
        status = conditional(tokens, at, end, run);
      } else if (is_word(tokens, at, "for")) {
        status = loop(tokens, at, end, run);
      } else if (is_word(tokens, at, "while") || is_word(tokens, at, "until")) {
        ++at;
        (void)list(tokens, at, end, {"done"}, false);
        at += at < end ? 1 : 0;
      } else if (is_word(tokens, at, "function")) {
        define(tokens, at, end, run);
      } else {
        status = simple(tokens, at, end, run);
      }
    }
    --depth_;
    return status;
  }

  int conditional(const GrubTokens& tokens, std::size_t& at, std::size_t end, bool run) {
    int status = 0;
    bool taken = false;
    bool more = true;
    while (more && at < end) {
      const bool is_else = is_word(tokens, at, "else");
      ++at;  // if, elif, else
      bool here = run && !taken;
      if (!is_else) {
        here = list(tokens, at, end, {"then", "fi"}, run && !taken) == 0 && here;
        if (at < end && is_word(tokens, at, "then")) ++at;
      }
      const int result = list(tokens, at, end, {"elif", "else", "fi"}, here);
      if (here) {
        status = result;
        taken = true;
      }
      more = at < end && tokens[at].kind == GrubToken::Kind::Word && tokens[at].text != "fi";
    }
    if (at < end) ++at;
    return status;
  }

  int loop(const GrubTokens& tokens, std::size_t& at, std::size_t end, bool run) {
    Words words;
    for (++at; at < end && tokens[at].kind == GrubToken::Kind::Word && !is_word(tokens, at, "do"); ++at) {
      if (run) expand(tokens[at].text, words);
    }
    while (at < end && tokens[at].kind == GrubToken::Kind::End) ++at;
    if (at < end && is_word(tokens, at, "do")) ++at;
    const std::size_t body = at;
    (void)list(tokens, at, end, {"done"}, false);
    const std::size_t after = at;
    // for NAME in WORDS
    for (std::size_t i = 2; run && i < words.size() && i < 102 && !used_up(); ++i) {
      ++commands_;  // a round costs what a command does, or empty ones nested in each other would be free
      set(words[0], words[i]);
      std::size_t inner = body;
      (void)list(tokens, inner, after, {}, true);
    }
    at = std::min(after + 1, end);
    return 0;
  }

  /// The index of the brace that closes the one at `open`.
  std::size_t closing(const GrubTokens& tokens, std::size_t open, std::size_t end) {
    std::size_t deep = 0;
    for (std::size_t i = open; i < end && menu_.take(1); ++i) {
      if (tokens[i].kind == GrubToken::Kind::Open) ++deep;
      if (tokens[i].kind == GrubToken::Kind::Close && --deep == 0) return i;
    }
    return end;
  }

  struct Block {
    const GrubTokens* tokens = nullptr;
    std::size_t begin = 0, end = 0;
  };

  void define(const GrubTokens& tokens, std::size_t& at, std::size_t end, bool run) {
    const std::string name = at + 1 < end ? tokens[at + 1].text : "";
    while (at < end && tokens[at].kind != GrubToken::Kind::Open) ++at;
    const std::size_t close = closing(tokens, at, end);
    if (run && functions_.size() < kMaxVariables) functions_[name] = {&tokens, std::min(at + 1, end), close};
    at = std::min(close + 1, end);
  }

  int simple(const GrubTokens& tokens, std::size_t& at, std::size_t end, bool run) {
    Words words;
    Block block;
    const std::size_t begin = at;
    while (at < end && tokens[at].kind != GrubToken::Kind::End && tokens[at].kind != GrubToken::Kind::Close) {
      if (tokens[at].kind == GrubToken::Kind::Open) {
        const std::size_t close = closing(tokens, at, end);
        block = {&tokens, at + 1, close};
        at = std::min(close + 1, end);
        break;
      }
      (void)menu_.take(1);
      if (run) expand(tokens[at].text, words);
      ++at;
    }
    if (at == begin) ++at;  // never stand still
    if (!run || words.empty()) return run ? 0 : 1;
    ++commands_;
    if (used_up()) return 1;
    return command(words, block);
  }

  int command(const Words& words, const Block& block) {
    const std::string& name = words[0];
    const std::size_t equals = name.find('=');
    if (words.size() == 1 && equals != std::string::npos && equals > 0 && name[0] != '[')
      return set(name.substr(0, equals), name.substr(equals + 1)), 0;
    if (name == "set") {
      for (std::size_t i = 1; i < words.size(); ++i) {
        const std::size_t at = words[i].find('=');
        if (at != std::string::npos) set(words[i].substr(0, at), words[i].substr(at + 1));
      }
      return 0;
    }
    if (name == "unset" && words.size() > 1) return variables_.erase(words[1]), 0;
    if (name == "false") return 1;
    if (name == "[" || name == "test") return grub_condition(words, *this) ? 0 : 1;
    if (name == "menuentry" || name == "submenu") return entry(words, block), 0;
    if (name == "source" || name == "." || name == "configfile") {
      if (words.size() > 1) {
        const auto path = in_image(words[1]);
        if (!path || !files_.exists(*path)) return 1;
        if (++files_read_ <= 64) source(*path);
      }
      return 0;
    }
    if (name == "search" || name == "search.fs_label" || name == "search.file" || name == "search.fs_uuid")
      return search(words);
    if (name == "loopback" && words.size() > 2) return loops_.set(words[words.size() - 2], words.back()), 0;
    if (current_ != nullptr && boot_command(words)) return 0;
    if (const auto function = functions_.find(name); function != functions_.end()) {
      const Block body = function->second;
      std::size_t at = body.begin;
      return list(*body.tokens, at, body.end, {}, true);
    }
    return 0;  // insmod, terminal, gfxmode, ...: nothing that decides what boots
  }

  bool boot_command(const Words& words) {
    std::string_view name = words[0];
    IsoBootEntry& boot = current_->boot;
    const auto is = [&](std::string_view base) {
      return name == base ||
             (name.starts_with(base) && (name.substr(base.size()) == "16" || name.substr(base.size()) == "efi"));
    };
    std::size_t first = 1;
    while (first < words.size() && words[first].starts_with("--")) ++first;
    if (is("linux") || name == "kernel" || name.starts_with("multiboot")) {
      if (first >= words.size()) return true;
      boot.protocol = name.starts_with("multiboot") ? IsoBootProtocol::Multiboot : IsoBootProtocol::Linux;
      boot.kernel = located(words[first]);
      boot.command_line.clear();
      for (std::size_t i = first + 1; i < words.size(); ++i) boot.command_line += (i > first + 1 ? " " : "") + words[i];
      if (boot.protocol == IsoBootProtocol::Linux) boot.command_line = without_initrd(boot.command_line, boot.initrds);
    } else if (is("initrd") || name == "module" || name == "module2") {
      if (is("initrd")) boot.initrds.clear();
      const std::size_t count = is("initrd") ? words.size() : std::min(words.size(), first + 1);
      for (std::size_t i = first; i < count; ++i) boot.initrds.push_back(located(words[i]));
    } else if (name == "chainloader" || name == "ntldr" || name == "knetbsd" || name == "kfreebsd" ||
               name == "xnu_kernel") {
      boot.protocol = IsoBootProtocol::Firmware;
      boot.kernel = first < words.size() ? words[first] : "";
      boot.problem = "is started by GRUB's `" + std::string(name) + "`, which needs firmware";
    } else if (name == "reboot" || name == "halt" || name == "fwsetup" || name == "exit") {
      boot.protocol = IsoBootProtocol::Firmware;
      boot.problem = "boots nothing: it is GRUB's `" + std::string(name) + "`";
    } else {
      return false;
    }
    current_->any = true;
    return true;
  }

  void entry(const Words& words, const Block& block) {
    if (block.tokens == nullptr || titles_.size() >= kMaxConfigDepth) return;
    std::string title, id;
    for (std::size_t i = 1; i < words.size(); ++i) {
      const auto option = [&](std::string_view name) -> std::optional<std::string> {
        if (words[i] == name && i + 1 < words.size()) return words[++i];
        if (words[i].starts_with(name) && words[i].size() > name.size() && words[i][name.size()] == '=')
          return words[i].substr(name.size() + 1);
        return std::nullopt;
      };
      if (auto value = option("--id")) {
        id = *value;
      } else if (option("--class") || option("--users") || option("--hotkey") || words[i].starts_with("--")) {
        continue;
      } else if (words[i] == "$menuentry_id_option" && i + 1 < words.size()) {
        id = words[++i];
      } else if (title.empty()) {
        title = words[i];
      } else if (id.empty() && words[i].starts_with("gnulinux-")) {
        id = words[i];
      }
    }
    if (id.empty()) id = title;
    // The titles of all menus around it are repeated in each entry.
    titles_.push_back(title);
    std::size_t size = id.size();
    for (const std::string& part : titles_) size += part.size();
    (void)menu_.take(size);
    const std::vector<std::size_t> here = index_;
    index_.push_back(0);
    const std::size_t variables = variables_.enter(), loops = loops_.enter();
    if (words[0] == "submenu") {
      std::size_t at = block.begin;
      (void)list(*block.tokens, at, block.end, {}, true);
    } else {
      Entry current;
      current.boot.id = id;
      for (std::size_t i = 0; i < titles_.size(); ++i) current.boot.title += (i > 0 ? " > " : "") + titles_[i];
      current.boot.loader = "grub";
      current.boot.config = config_;
      Entry* const outer = std::exchange(current_, &current);
      std::size_t at = block.begin;
      (void)list(*block.tokens, at, block.end, {}, true);
      current_ = outer;
      if (!current.any) {
        current.boot.protocol = IsoBootProtocol::Firmware;
        current.boot.problem = "boots no kernel";
      }
      // What was cut off in the middle is not what the entry says.
      if (!used_up() && menu_.add(std::move(current.boot))) places_.push_back(here);
    }
    titles_.pop_back();
    // `default` is read where the menu is shown, so an entry's own settings do not reach it.
    variables_.leave(variables);
    loops_.leave(loops);
    index_ = here;
    ++index_.back();
  }

  /// A path as GRUB writes it, as one of this image; nothing where it is on another device. A path in a loop device
  /// keeps its file: "file.iso:/path".
  std::optional<std::string> in_image(std::string_view path, std::string* container = nullptr) {
    std::string device(value_of("root"));
    if (path.starts_with('(')) {
      const std::size_t close = path.find(')');
      if (close == std::string_view::npos) return std::nullopt;
      device = path.substr(1, close - 1);
      path.remove_prefix(close + 1);
    }
    if (device.starts_with('(') && device.ends_with(')')) device = device.substr(1, device.size() - 2);
    if (const std::string* const file = loops_.find(device); file != nullptr) {
      if (container == nullptr || !menu_.take(file->size())) return std::nullopt;
      const auto inner = file->starts_with("(" + device + ")") ? std::nullopt : in_image(*file);
      if (!inner) return std::nullopt;
      *container = *inner;
      return resolve_path("/", path);
    }
    if (device.starts_with("hd") || device.starts_with("fd") || device.starts_with("memdisk") ||
        device.starts_with("tftp") || device.starts_with("http")) {
      return std::nullopt;
    }
    return resolve_path("/", path);
  }

  std::string located(std::string_view path) {
    std::string container;
    const auto found = in_image(path, &container);
    if (!found) {
      if (current_->boot.problem.empty())
        current_->boot.problem =
            "its file " + std::string(path) + " is on another device (" + std::string(value_of("root")) + ")";
      return std::string(path);
    }
    if (!container.empty()) current_->boot.container = container;
    return *found;
  }

  bool exists(const std::string& path) override {
    const auto found = in_image(path);
    return found && files_.exists(*found);
  }
  bool is_directory(const std::string& path) override {
    const auto found = in_image(path);
    return found && files_.is_directory(*found);
  }

  int search(const Words& words) {
    std::string variable = "root", wanted;
    bool by_label = words[0].ends_with("label"), by_file = words[0].ends_with("file");
    for (std::size_t i = 1; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (word == "--set" || word == "-s") {
        if (i + 2 < words.size() && !words[i + 1].starts_with("-")) variable = words[++i];
      } else if (word.starts_with("--set=")) {
        variable = word.substr(6);
      } else if (word == "--file" || word == "-f") {
        by_file = true;
      } else if (word == "--label" || word == "-l") {
        by_label = true;
      } else if (word == "--hint" || word == "-n") {
        if (word == "--hint") ++i;
      } else if (!word.starts_with("-") && wanted.empty()) {
        wanted = word;
      }
    }
    const bool found = by_file ? files_.exists(resolve_path("/", wanted)) : by_label ? wanted == files_.label() : true;
    if (!found) return 1;
    set(variable, "cd0");
    return 0;
  }

  /// Each use of a value counts as much as it is long.
  [[nodiscard]] std::string_view value_of(std::string_view name) {
    const std::string* const found = variables_.find(name);
    if (found == nullptr) return name.starts_with("feature_") ? "y" : "";
    return menu_.take(found->size()) ? std::string_view(*found) : std::string_view();
  }
  void set(const std::string& name, std::string value) {
    if (value.size() <= kMaxVariable && (variables_.find(name) != nullptr || variables_.size() < kMaxVariables))
      variables_.set(name, std::move(value));
  }
  void expand(std::string_view raw, Words& words) {
    const std::size_t before = words.size();
    if (!menu_.take(raw.size())) return;
    expand_grub(raw, [this](std::string_view name) { return value_of(name); }, kMaxVariable, words);
    (void)menu_.take((words.size() - before) * sizeof(std::string));
  }

  /// `default` is a number, a title or an id; in a submenu "2>0" or "Advanced>id".
  void choose_default() {
    const std::string wanted(value_of("default"));
    const std::size_t count = menu_.entries.size();
    if (wanted.empty() || wanted == "saved" || menu_.default_entry) return;
    for (std::size_t i = first_; i < count; ++i) {
      const IsoBootEntry& boot = menu_.entries[i];
      std::string place, title;
      for (const std::size_t index : places_[i - first_]) place += (place.empty() ? "" : ">") + std::to_string(index);
      for (std::size_t at = 0; at < boot.title.size(); ++at) {
        if (boot.title.compare(at, 3, " > ") == 0) {
          title += '>';
          at += 2;
        } else {
          title += boot.title[at];
        }
      }
      const std::size_t last = wanted.rfind('>');
      if (wanted == place || wanted == boot.id || wanted == title ||
          (last != std::string::npos && wanted.substr(last + 1) == boot.id)) {
        menu_.default_entry = i;
        return;
      }
    }
  }

  ConfigFiles& files_;
  BootMenu& menu_;
  std::size_t first_;
  std::string config_;
  GrubScope variables_;
  GrubScope loops_;  ///< Files by the names of their devices.
  std::map<std::string, Block, std::less<>> functions_;
  std::vector<std::unique_ptr<GrubTokens>> sources_;
  std::vector<std::string> titles_;
  std::vector<std::size_t> index_{0};             ///< Where in the menu the next entry goes, by level.
  std::vector<std::vector<std::size_t>> places_;  ///< Of each entry.
  Entry* current_ = nullptr;
  int depth_ = 0, commands_ = 0, files_read_ = 0;
};

}  // namespace

void read_grub(ConfigFiles& files, const std::string& config, BootMenu& menu) { Grub(files, menu).run(config); }

}  // namespace vm_platform::iso
