#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <vm_platform/passthrough.hpp>

#include "passthrough/host_changes.hpp"
#include "passthrough/in_use.hpp"
#include "passthrough/journal.hpp"
#include "passthrough/sysfs.hpp"

namespace vm_platform {
namespace {

VmError in_use_error(const std::vector<DeviceUse>& uses) {
  return VmError(ErrorCode::Busy, "take", uses.front().device.to_string(), list_of(uses))
      .with_detail(PassthroughError::InUse)
      .with_hint("end that use first, or override it with --force");
}

/// Where the time was up, what to do about it: what the journal has is all there, and still true.
VmError stuck(const VmError& error) {
  if (error.code() != ErrorCode::Timeout) return error;
  return VmError(error)
      .with_detail(PassthroughError::Stuck)
      .with_hint("end what holds it, then put things right: vmp passthrough recover");
}

/// Puts every device of a set back; goes on after a failure and gives the first.
Result<void> put_back(const TakenSet& set, const HostChanges& host, const PassthroughOptions& options) {
  Result<void> result;
  for (auto device = set.devices.rbegin(); device != set.devices.rend(); ++device) {
    if (!host.same_hardware(*device)) continue;
    if (options.on_step) {
      options.on_step(fmt::format("give {} back to {}", device->address.to_string(),
                                  device->former_driver.empty() ? "no driver" : device->former_driver));
    }
    auto restored = host.put_back(*device);
    if (!restored && result) result = std::move(restored);
  }
  return result;
}

bool holds(const TakenSet& set, PciAddress address) {
  return std::ranges::find(set.devices, address, &TakenDevice::address) != set.devices.end();
}

/// Whether a set that is no leftover of an earlier boot holds the device.
const Journal::Entry* holder_of(const std::vector<Journal::Entry>& entries, PciAddress address) {
  for (const Journal::Entry& entry : entries)
    if (!entry.set.stale && holds(entry.set, address)) return &entry;
  return nullptr;
}

std::unexpected<VmError> not_taken(PciAddress address) {
  return fail(VmError(ErrorCode::Status, "give back", address.to_string(), "it was not taken by this tool")
                  .with_detail(PassthroughError::NotTaken)
                  .with_hint("`vmp passthrough status` shows what was"));
}

}  // namespace

PassthroughManager::PassthroughManager(PassthroughOptions options) : options_(std::move(options)) {}

Result<void> PassthroughManager::take(const PassthroughPlan& plan, bool force) {
  if (!plan.in_use.empty() && !force) return fail(in_use_error(plan.in_use));
  if (plan.steps.empty()) return {};
  const HostChanges host(options_);
  const auto journal = Journal::open(options_.state, options_.root, true);
  if (!journal) return fail(journal.error());
  const auto entries = journal->entries();
  if (!entries) return fail(entries.error());
  TakenSet set;
  set.state = TakenSet::State::Taking;
  for (const PassthroughDevice& device : plan.devices) {
    const bool moves = std::ranges::any_of(plan.steps, [&](const PlanStep& step) {
      return step.kind == PlanStep::Kind::Bind && step.device == device.info.address;
    });
    if (!moves) continue;
    if (const auto* entry = holder_of(*entries, device.info.address)) {
      return fail(VmError(ErrorCode::Status, "take", device.info.address.to_string(),
                          fmt::format("the journal says it is being {}",
                                      entry->set.state == TakenSet::State::Releasing ? "given back" : "taken"))
                      .with_hint("put it right first: vmp passthrough recover"));
    }
    // What counts is what is so now, under the lock, and not when the plan was made.
    if (const std::string now = host.driver(device.info.address); now != device.info.driver) {
      return fail(
          VmError(ErrorCode::Status, "take", device.info.address.to_string(),
                  fmt::format("its driver was '{}' when the plan was made and is '{}' now", device.info.driver, now))
              .with_hint("plan again"));
    }
    set.devices.push_back(host.record(device, plan.steps));
  }
  // From here on the former state is on disk: whatever ends this process, the next one can put everything back.
  const auto file = journal->save(set, std::nullopt);
  if (!file) return fail(file.error());
  for (const PlanStep& step : plan.steps) {
    if (options_.on_step) options_.on_step(step.text);
    auto done = host.run(step);
    if (done) continue;
    // The kernel is in the middle of it: whatever touches the device now waits as well.
    if (done.error().code() == ErrorCode::Timeout) return fail(stuck(done.error()));
    auto back = put_back(set, host, options_);
    if (!back) {
      return fail(VmError(done.error())
                      .with_hint("putting things back failed too: " + back.error().message())
                      .with_detail(PassthroughError::RollbackFailed));
    }
    if (auto removed = journal->remove(*file); !removed) return removed;
    return fail(VmError(done.error()).with_detail(PassthroughError::RolledBack));
  }
  if (options_.on_step) options_.on_step("write down that all is taken");
  set.state = TakenSet::State::Taken;
  const auto saved = journal->save(set, *file);
  if (!saved) return fail(saved.error());
  return {};
}

Result<TakenSet> PassthroughManager::taken_with(PciAddress address) const {
  auto sets = status();
  if (!sets) return fail(sets.error());
  for (TakenSet& set : *sets)
    if (holds(set, address)) return std::move(set);
  return not_taken(address);
}

Result<TakenSet> PassthroughManager::release(PciAddress address, bool force) {
  const HostChanges host(options_);
  const auto journal = Journal::open(options_.state, options_.root, true);
  if (!journal) return fail(journal.error());
  const auto entries = journal->entries();
  if (!entries) return fail(entries.error());
  const auto entry =
      std::ranges::find_if(*entries, [&](const Journal::Entry& candidate) { return holds(candidate.set, address); });
  if (entry == entries->end()) return not_taken(address);
  TakenSet set = entry->set;
  if (set.stale) {
    if (auto removed = journal->remove(entry->file); !removed) return fail(removed.error());
    return set;
  }
  std::vector<std::string> nodes;
  for (const TakenDevice& device : set.devices)
    std::ranges::move(vfio_nodes(device.address, options_.sysfs), std::back_inserter(nodes));
  const auto holders = find_holders(nodes, options_.root);
  if (!holders.empty() && !force) {
    return fail(VmError(ErrorCode::Busy, "give back", address.to_string(),
                        fmt::format("{} (pid {}) has {} open", holders[0].command, holders[0].pid, holders[0].node))
                    .with_detail(PassthroughError::InUse)
                    .with_hint("end that process; --force asks it, through the kernel, to let go"));
  }
  set.state = TakenSet::State::Releasing;
  if (const auto saved = journal->save(set, entry->file); !saved) return fail(saved.error());
  if (auto back = put_back(set, host, options_); !back) return fail(stuck(back.error()));
  if (options_.on_step) options_.on_step("forget them");
  if (auto removed = journal->remove(entry->file); !removed) return fail(removed.error());
  return set;
}

Result<std::vector<TakenSet>> PassthroughManager::status() const {
  std::vector<TakenSet> sets;
  const auto journal = Journal::open(options_.state, options_.root, false);
  if (!journal) {
    if (journal.error().code() == ErrorCode::NotFound) return sets;
    return fail(journal.error());
  }
  const auto entries = journal->entries();
  if (!entries) return fail(entries.error());
  for (const Journal::Entry& entry : *entries) sets.push_back(entry.set);
  return sets;
}

Result<std::vector<TakenSet>> PassthroughManager::recover() {
  const HostChanges host(options_);
  const auto journal = Journal::open(options_.state, options_.root, true);
  if (!journal) return fail(journal.error());
  const auto entries = journal->entries();
  if (!entries) return fail(entries.error());
  std::vector<TakenSet> put_right;
  for (const Journal::Entry& entry : *entries) {
    if (entry.set.state == TakenSet::State::Taken && !entry.set.stale) continue;
    if (!entry.set.stale) {
      if (auto back = put_back(entry.set, host, options_); !back) return fail(stuck(back.error()));
    }
    if (auto removed = journal->remove(entry.file); !removed) return fail(removed.error());
    put_right.push_back(entry.set);
  }
  return put_right;
}

}  // namespace vm_platform
