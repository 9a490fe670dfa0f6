// The declarative SR-IOV file: YAML, read into a small tree first so that every complaint can name its line.
#include <fmt/format.h>
#include <yaml.h>

#include <algorithm>
#include <set>
#include <type_traits>
#include <vm_platform/sriov.hpp>

#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

constexpr int kMaxDepth = 16;

struct Node {
  enum class Kind : std::uint8_t { Scalar, List, Map };
  Kind kind = Kind::Scalar;
  std::size_t line = 0;
  std::string text;
  std::vector<Node> items;         // of a list; the values of a map
  std::vector<std::string> names;  // the keys of a map, in the order of its values
};

std::unexpected<VmError> complain(std::size_t line, std::string reason) {
  return fail(VmError(ErrorCode::InvalidArgument, "read SR-IOV file", fmt::format("line {}", line), std::move(reason))
                  .with_hint("docs/passthrough.md shows one"));
}

class Parser {
 public:
  explicit Parser(std::string_view text) {
    ready_ = ::yaml_parser_initialize(&parser_) != 0;
    if (ready_)
      ::yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;
  ~Parser() {
    if (ready_) ::yaml_parser_delete(&parser_);
  }

  Result<Node> document() {
    if (!ready_) return fail(ErrorCode::OutOfMemory, "read SR-IOV file", {});
    for (;;) {
      auto event = next();
      if (!event) return fail(event.error());
      if (event->type == YAML_STREAM_END_EVENT) return complain(1, "it is empty");
      if (event->type == YAML_STREAM_START_EVENT || event->type == YAML_DOCUMENT_START_EVENT) continue;
      return node(*event, 0);
    }
  }

 private:
  struct Event {
    yaml_event_type_t type = YAML_NO_EVENT;
    std::size_t line = 0;
    std::string text;
  };

  Result<Event> next() {
    yaml_event_t event;
    if (::yaml_parser_parse(&parser_, &event) == 0) {
      return complain(parser_.problem_mark.line + 1, parser_.problem != nullptr ? parser_.problem : "not YAML");
    }
    Event read{event.type, event.start_mark.line + 1, {}};
    if (event.type == YAML_SCALAR_EVENT)
      read.text.assign(reinterpret_cast<const char*>(event.data.scalar.value), event.data.scalar.length);
    ::yaml_event_delete(&event);
    return read;
  }

  Result<Node> node(const Event& start, int depth) {
    if (depth > kMaxDepth) return complain(start.line, "nested too deep");
    Node made;
    made.line = start.line;
    if (start.type == YAML_SCALAR_EVENT) {
      made.text = start.text;
      return made;
    }
    if (start.type != YAML_SEQUENCE_START_EVENT && start.type != YAML_MAPPING_START_EVENT)
      return complain(start.line, "aliases are not understood here");
    const bool map = start.type == YAML_MAPPING_START_EVENT;
    made.kind = map ? Node::Kind::Map : Node::Kind::List;
    for (;;) {
      auto event = next();
      if (!event) return fail(event.error());
      if (event->type == YAML_SEQUENCE_END_EVENT || event->type == YAML_MAPPING_END_EVENT) return made;
      std::string key;
      if (map) {
        if (event->type != YAML_SCALAR_EVENT) return complain(event->line, "a key must be a word");
        key = event->text;
        event = next();
        if (!event) return fail(event.error());
      }
      auto value = node(*event, depth + 1);
      if (!value) return value;
      if (map) made.names.push_back(std::move(key));
      made.items.push_back(std::move(*value));
    }
  }

  yaml_parser_t parser_{};
  bool ready_ = false;
};

Result<std::uint32_t> number(const Node& node, std::uint32_t most) {
  const auto value = text::number<std::uint32_t>(node.text);
  if (node.kind != Node::Kind::Scalar || !value || *value > most)
    return complain(node.line, fmt::format("'{}' is not a number from 0 to {}", node.text, most));
  return *value;
}

Result<bool> yes_or_no(const Node& node) {
  if (node.text == "true" || node.text == "yes" || node.text == "on") return true;
  if (node.text == "false" || node.text == "no" || node.text == "off") return false;
  return complain(node.line, fmt::format("'{}' is neither true nor false", node.text));
}

/// `target = read(node)`, or the error.
template <typename T, typename U>
Result<void> store(T& target, Result<U> value) {
  if (!value) return fail(value.error());
  if constexpr (std::is_integral_v<T>)
    target = static_cast<T>(*value);  // `number` has checked the range
  else
    target = *value;
  return {};
}

Result<void> read_setting(const std::string& key, const Node& node, VfConfig& config) {
  const auto vlan = [&]() -> VlanConfig& { return config.vlan ? *config.vlan : config.vlan.emplace(); };
  const auto rate = [&]() -> QosConfig& { return config.rate ? *config.rate : config.rate.emplace(); };
  if (key == "mac") {
    auto mac = VfMacConfig::parse(node.text);
    if (!mac) return complain(node.line, fmt::format("'{}': {}", node.text, mac.error().reason()));
    config.mac = *mac;
    return {};
  }
  if (key == "vlan") return store(vlan().id, number(node, 4094));
  if (key == "qos") return store(vlan().qos, number(node, 7));
  if (key == "protocol") {
    if (node.text != "802.1Q" && node.text != "802.1ad")
      return complain(node.line, "the protocol is 802.1Q or 802.1ad");
    vlan().protocol = node.text == "802.1Q" ? VlanConfig::Protocol::Dot1q : VlanConfig::Protocol::Dot1ad;
    return {};
  }
  if (key == "min_rate") return store(rate().min_rate, number(node, UINT32_MAX));
  if (key == "max_rate") return store(rate().max_rate, number(node, UINT32_MAX));
  if (key == "trust") return store(config.trust, yes_or_no(node));
  if (key == "spoof_check") return store(config.spoof_check, yes_or_no(node));
  if (key == "rss_query") return store(config.rss_query, yes_or_no(node));
  if (key == "node_guid" || key == "port_guid") {
    const auto guid = VfGuid::parse(node.text);
    if (!guid) return complain(node.line, fmt::format("'{}': {}", node.text, guid.error().reason()));
    (key == "node_guid" ? config.node_guid : config.port_guid) = *guid;
    return {};
  }
  if (key == "rate_group") {
    config.rate_group = node.text;
    return {};
  }
  if (key == "link") {
    constexpr std::string_view kStates[] = {"auto", "enable", "disable"};
    for (std::uint8_t i = 0; i < 3; ++i) {
      if (node.text != kStates[i]) continue;
      config.link = static_cast<VfLinkState>(i);
      return {};
    }
    return complain(node.line, "link is auto, enable or disable");
  }
  return complain(node.line, fmt::format("unknown setting '{}'", key));
}

Result<std::vector<RateGroup>> read_rate_groups(const Node& list) {
  if (list.kind != Node::Kind::List) return complain(list.line, "rate_groups is a list");
  std::vector<RateGroup> groups;
  for (const Node& entry : list.items) {
    if (entry.kind != Node::Kind::Map) return complain(entry.line, "expected name, min_rate and max_rate");
    RateGroup group;
    for (std::size_t i = 0; i < entry.items.size(); ++i) {
      const std::string& key = entry.names[i];
      const Node& value = entry.items[i];
      Result<void> stored;
      if (key == "name")
        group.name = value.text;
      else if (key == "min_rate" || key == "max_rate")
        stored = store(key == "min_rate" ? group.rate.min_rate : group.rate.max_rate, number(value, UINT32_MAX));
      else
        return complain(value.line, fmt::format("unknown key '{}'", key));
      if (!stored) return fail(stored.error());
    }
    const bool known = std::ranges::find(groups, group.name, &RateGroup::name) != groups.end();
    if (group.name.empty() || known) return complain(entry.line, "a rate group needs a name of its own");
    groups.push_back(std::move(group));
  }
  return groups;
}

Result<SriovDeclaration> read_physical_function(const Node& node) {
  if (node.kind != Node::Kind::Map) return complain(node.line, "expected device, count and vfs");
  SriovDeclaration declaration;
  bool counted = false;
  const Node* functions = nullptr;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    const std::string& key = node.names[i];
    const Node& value = node.items[i];
    if (key == "device") {
      declaration.physical_function = value.text;
    } else if (key == "count") {
      if (auto stored = store(declaration.count, number(value, 65535)); !stored) return fail(stored.error());
      counted = true;
    } else if (key == "autoprobe") {
      if (auto stored = store(declaration.autoprobe, yes_or_no(value)); !stored) return fail(stored.error());
    } else if (key == "switchdev") {
      if (auto stored = store(declaration.switchdev, yes_or_no(value)); !stored) return fail(stored.error());
    } else if (key == "rate_groups") {
      auto groups = read_rate_groups(value);
      if (!groups) return fail(groups.error());
      declaration.rate_groups = std::move(*groups);
    } else if (key == "vfs") {
      functions = &value;
    } else {
      return complain(value.line, fmt::format("unknown key '{}'", key));
    }
  }
  if (declaration.physical_function.empty() || !counted) return complain(node.line, "device and count are needed");
  if (functions == nullptr) return declaration;
  if (functions->kind != Node::Kind::List) return complain(functions->line, "vfs is a list");
  std::set<std::uint32_t> seen;
  for (const Node& entry : functions->items) {
    std::optional<std::uint32_t> index;
    VfConfig config;
    if (entry.kind != Node::Kind::Map) return complain(entry.line, "expected index and settings");
    for (std::size_t i = 0; i < entry.items.size(); ++i) {
      const std::string& key = entry.names[i];
      const Node& value = entry.items[i];
      if (value.kind != Node::Kind::Scalar) return complain(value.line, fmt::format("'{}' is a single value", key));
      auto stored = key == "index" ? store(index, number(value, 65535)) : read_setting(key, value, config);
      if (!stored) return fail(stored.error());
    }
    if (!index || *index >= declaration.count)
      return complain(entry.line, fmt::format("index is needed, and below the count of {}", declaration.count));
    if (!seen.insert(*index).second) return complain(entry.line, fmt::format("vf {} is there twice", *index));
    declaration.functions.emplace_back(*index, config);
  }
  return declaration;
}

}  // namespace

Result<std::vector<SriovDeclaration>> parse_sriov_file(std::string_view text) {
  const auto document = Parser(text).document();
  if (!document) return fail(document.error());
  if (document->kind != Node::Kind::Map || document->items.size() != 1 ||
      document->names.front() != "physical_functions" || document->items.front().kind != Node::Kind::List)
    return complain(document->line, "it holds one list, physical_functions");
  std::vector<SriovDeclaration> declarations;
  for (const Node& node : document->items.front().items) {
    auto declaration = read_physical_function(node);
    if (!declaration) return fail(declaration.error());
    declarations.push_back(std::move(*declaration));
  }
  return declarations;
}

}  // namespace vm_platform
