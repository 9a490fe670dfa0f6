// Names and their values in GRUB's shell, where an entry's commands change them for that entry alone.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vm_platform::iso {

/// A map that can go back to how it was. It keeps what changed, not copies: entering and leaving an entry costs what
/// the entry changes, however much is set outside of it.
class GrubScope {
 public:
  /// nullptr where `name` has no value.
  [[nodiscard]] const std::string* find(std::string_view name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? nullptr : &found->second;
  }
  [[nodiscard]] std::size_t size() const { return values_.size(); }

  void set(const std::string& name, std::string value) { change(name, std::move(value)); }
  void erase(const std::string& name) { change(name, std::nullopt); }

  /// A place to go back to; inner ones first.
  [[nodiscard]] std::size_t enter() {
    ++depth_;
    return changes_.size();
  }
  void leave(std::size_t mark) {
    --depth_;
    for (; changes_.size() > mark; changes_.pop_back()) put(changes_.back().name, std::move(changes_.back().before));
  }

 private:
  struct Change {
    std::string name;
    std::optional<std::string> before;
  };
  void change(const std::string& name, std::optional<std::string> value) {
    std::optional<std::string> before = put(name, std::move(value));
    if (depth_ > 0) changes_.push_back({name, std::move(before)});
  }
  /// Returns what was there.
  std::optional<std::string> put(const std::string& name, std::optional<std::string> value) {
    std::optional<std::string> before;
    if (const auto found = values_.find(name); found != values_.end()) {
      before = std::move(found->second);
      if (value) {
        found->second = std::move(*value);
      } else {
        values_.erase(found);
      }
    } else if (value) {
      values_.emplace(name, std::move(*value));
    }
    return before;
  }
  std::map<std::string, std::string, std::less<>> values_;
  std::vector<Change> changes_;
  int depth_ = 0;
};

}  // namespace vm_platform::iso
