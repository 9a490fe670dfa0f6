// A declarative file made true: the difference first, then the changes, and all of it back where one fails.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/sriov.hpp>

#include "passthrough/vf_config.hpp"

namespace vm_platform {
namespace {

std::string rate_text(const QosConfig& rate) { return fmt::format("{} to {} Mbit/s", rate.min_rate, rate.max_rate); }

/// What one physical function is like before anything is changed.
struct Before {
  VfManager manager;
  std::uint32_t count = 0;
  std::optional<bool> autoprobe, switchdev;
  std::vector<RateGroup> groups;
  std::vector<VfState> functions;
};

Result<Before> look(const std::string& name, const std::filesystem::path& sysfs, const std::filesystem::path& root) {
  auto manager = VfManager::open(name, sysfs, root);
  if (!manager) return fail(manager.error());
  const std::uint32_t count = manager->count();
  const auto autoprobe = manager->autoprobe(), switchdev = manager->switchdev();
  auto groups = manager->rate_groups();
  if (!groups) return fail(groups.error());
  auto functions = manager->list();
  if (!functions) return fail(functions.error());
  return Before{std::move(*manager), count, autoprobe, switchdev, std::move(*groups), std::move(*functions)};
}

const char* on_off(const std::optional<bool>& value) { return !value ? "unknown" : *value ? "on" : "off"; }

bool changes_mode(const SriovDeclaration& wanted, const Before& before) {
  return wanted.switchdev && wanted.switchdev != before.switchdev;
}

/// What `wanted` changes. New functions are compared with nothing: what drivers give them is not known before.
void compare_one(const SriovDeclaration& wanted, const Before& before, std::vector<SriovChange>& changes) {
  const std::string& name = before.manager.name();
  const auto add = [&](std::string text) { changes.push_back({std::move(text)}); };
  if (changes_mode(wanted, before))
    add(fmt::format("{}: switchdev mode {} -> {}", name, on_off(before.switchdev), on_off(wanted.switchdev)));
  if (wanted.autoprobe && before.autoprobe && wanted.autoprobe != before.autoprobe)
    add(fmt::format("{}: driver probing of new virtual functions {} -> {}", name, on_off(before.autoprobe),
                    on_off(wanted.autoprobe)));
  if (before.count != wanted.count)
    add(fmt::format("{}: virtual functions {} -> {}", name, before.count, wanted.count));
  for (const RateGroup& group : wanted.rate_groups) {
    const auto found = std::ranges::find(before.groups, group.name, &RateGroup::name);
    if (found != before.groups.end() && *found == group) continue;
    add(fmt::format("{}: rate group {} {} -> {}", name, group.name,
                    found == before.groups.end() ? "none" : rate_text(found->rate), rate_text(group.rate)));
  }
  const bool kept = before.count == wanted.count;
  for (const auto& [index, config] : wanted.functions) {
    const VfConfig now = kept && index < before.functions.size() ? before.functions[index].config : VfConfig{};
    for (const VfDifference& difference : compare(config, now))
      add(fmt::format("{} vf {}: {} {} -> {}", name, index, difference.name, kept ? difference.actual : "new",
                      difference.wanted));
  }
}

/// The order matters: rates need the mode, members need their group.
Result<void> make_one(const SriovDeclaration& wanted, Before& before) {
  VfManager& manager = before.manager;
  // Drivers change mode most willingly while there are no functions; those that are there stay where they allow it.
  if (changes_mode(wanted, before)) {
    if (auto set = manager.set_switchdev(*wanted.switchdev); !set) return set;
  }
  if (auto resized = manager.resize(wanted.count, wanted.autoprobe); !resized) return resized;
  for (const RateGroup& group : wanted.rate_groups)
    if (auto set = manager.set_rate_group(group); !set) return set;
  if (wanted.functions.empty()) return {};
  const auto functions = manager.list();
  if (!functions) return fail(functions.error());
  for (const auto& [index, config] : wanted.functions) {
    const VfConfig now = index < functions->size() ? (*functions)[index].config : VfConfig{};
    if (compare(config, now).empty()) continue;
    if (auto applied = manager.apply(index, config); !applied) return applied;
  }
  return {};
}

/// Settings that a driver reports and nobody can set on the way back (an address of zeros) are left out.
VfConfig settable(VfConfig config) {
  if (config.mac && *config.mac == VfMacConfig{}) config.mac.reset();
  if (config.node_guid && config.node_guid->value == 0) config.node_guid.reset();
  if (config.port_guid && config.port_guid->value == 0) config.port_guid.reset();
  return config;
}

/// True where all is as `before` says. First what the rest depends on: drivers change the mode only with the number of
/// functions that they had then, and rates and groups are set in the mode that has them.
bool put_back(const SriovDeclaration& wanted, Before& before) {
  bool good = true;
  const auto note = [&](const Result<void>& result) { good = result.has_value() && good; };
  VfManager& manager = before.manager;
  note(manager.resize(before.count, before.autoprobe, VfManager::HostUse::Ignore));
  if (before.switchdev && manager.switchdev() != before.switchdev) note(manager.set_switchdev(*before.switchdev));
  for (const RateGroup& group : before.groups) note(manager.set_rate_group(group));

  // Functions made anew have lost every setting and those of another mode their rates, the others what was asked for.
  const bool lost = before.count != wanted.count || changes_mode(wanted, before);
  const auto now = manager.list();
  for (const VfState& function : before.functions) {
    const std::uint32_t index = function.id.index;
    const auto asked = std::ranges::find(wanted.functions, index, [](const auto& entry) { return entry.first; });
    VfConfig config = settable(function.config);
    if (!lost) config = asked == wanted.functions.end() ? VfConfig{} : former(asked->second, config);
    if (now && index < now->size() && compare(config, (*now)[index].config).empty()) continue;
    note(manager.apply(index, config));
  }
  const auto groups = manager.rate_groups();  // new ones have no members any more
  for (const RateGroup& group : groups ? *groups : std::vector<RateGroup>{}) {
    const auto is_it = [&](const RateGroup& other) { return other.name == group.name; };
    if (std::ranges::any_of(wanted.rate_groups, is_it) && std::ranges::none_of(before.groups, is_it))
      note(manager.delete_rate_group(group.name));
  }
  return good;
}

Result<std::vector<Before>> look_at_all(const std::vector<SriovDeclaration>& wanted, const std::filesystem::path& sysfs,
                                        const std::filesystem::path& root) {
  std::vector<Before> all;
  for (const SriovDeclaration& declaration : wanted) {
    auto before = look(declaration.physical_function, sysfs, root);
    if (!before) return fail(before.error());
    const auto most = before->manager.limit();
    if (most && declaration.count > *most) {
      return fail(VmError(ErrorCode::InvalidArgument, "set virtual functions of",
                          fmt::format("{} to {}", before->manager.name(), declaration.count),
                          fmt::format("it can have {} at most", *most)));
    }
    all.push_back(std::move(*before));
  }
  return all;
}

}  // namespace

Result<std::vector<SriovChange>> diff_sriov(const std::vector<SriovDeclaration>& wanted,
                                            const std::filesystem::path& sysfs, const std::filesystem::path& root) {
  const auto all = look_at_all(wanted, sysfs, root);
  if (!all) return fail(all.error());
  std::vector<SriovChange> changes;
  for (std::size_t i = 0; i < wanted.size(); ++i) compare_one(wanted[i], (*all)[i], changes);
  return changes;
}

Result<std::vector<SriovChange>> converge_sriov(const std::vector<SriovDeclaration>& wanted,
                                                const std::filesystem::path& sysfs, const std::filesystem::path& root) {
  auto all = look_at_all(wanted, sysfs, root);
  if (!all) return fail(all.error());
  std::vector<SriovChange> changes;
  for (std::size_t i = 0; i < wanted.size(); ++i) compare_one(wanted[i], (*all)[i], changes);
  for (std::size_t i = 0; i < wanted.size(); ++i) {  // what is in use is refused before anything is changed
    if ((*all)[i].count == wanted[i].count) continue;
    if (auto unused = (*all)[i].manager.check_unused(); !unused) return fail(unused.error());
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    auto made = make_one(wanted[i], (*all)[i]);
    if (made) continue;
    bool good = true;
    for (std::size_t back = i + 1; back-- > 0;) good = put_back(wanted[back], (*all)[back]) && good;
    return fail(
        std::move(made.error())
            .with_detail(make_error_code(good ? PassthroughError::RolledBack : PassthroughError::RollbackFailed)));
  }
  return changes;
}

}  // namespace vm_platform
