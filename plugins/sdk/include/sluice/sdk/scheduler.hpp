// sluice/sdk/scheduler.hpp - a scheduling policy as a class: plan() is all that it must have.
#pragma once
#include <sluice/abi/kinds/scheduler.h>
#include <sluice/sdk/plugin.hpp>

namespace sluice::sdk {
inline namespace v0 {

/// Refs that can be walked.
struct Refs {
  const sluice_seq_ref *p;
  uint32_t n;
  const sluice_seq_ref *begin() const { return p; }
  const sluice_seq_ref *end() const { return p + n; }
};

/// A step as a policy sees it; valid during plan().
struct View {
  const sluice_sched_view &v;
  const sluice_sched_table &t;
  Refs resident() const { return {v.resident, v.n_resident}; }
  Refs swapped() const { return {v.swapped, v.n_swapped}; }
  Refs waiting() const { return {v.waiting, v.n_waiting}; }
  uint32_t usable_blocks() const { return v.device_free + v.device_evictable; }
  bool decodes(sluice_seq_ref r) const { return t.pending[r] <= t.width[r]; }
  /// Most blocks that n more tokens can take; with cached prefix blocks it will be fewer.
  uint32_t blocks_for(sluice_seq_ref r, uint32_t n) const {
    const bool branches = t.width[r] > 1;  // each may have to copy its last block
    if (branches && decodes(r)) return t.width[r];
    const uint64_t tokens = uint64_t{t.computed[r]} + t.in_flight[r] + n, held = t.device_blocks[r];
    const uint64_t wanted = tokens / v.block_size + (tokens % v.block_size != 0);
    return (wanted < held ? 0 : static_cast<uint32_t>(wanted - held)) + (branches ? t.width[r] : 0);
  }
};

/// Writes acts into the host's arrays; running out of room there is a mistake of the policy.
class Plan {
 public:
  explicit Plan(sluice_sched_plan &p) : p_(p) { p_.n_acts = p_.n_victims = 0, p_.wake_at_ns = 0; }
  void run(sluice_seq_ref r, uint32_t tokens, uint32_t drafts = 0) { add(SLUICE_ACT_RUN, r, tokens, drafts); }
  void preempt(sluice_seq_ref r) { add(SLUICE_ACT_PREEMPT, r, 0, 0); }
  void swap_out(sluice_seq_ref r) { add(SLUICE_ACT_SWAP_OUT, r, 0, 0); }
  void swap_in(sluice_seq_ref r) { add(SLUICE_ACT_SWAP_IN, r, 0, 0); }
  void reject(sluice_seq_ref r) { add(SLUICE_ACT_REJECT, r, 0, 0); }
  void wake_at(uint64_t ns) { p_.wake_at_ns = ns; }
  /// A full list takes no more: the host will hardly get that far.
  void victim(sluice_seq_ref r) {
    if (p_.n_victims < p_.victim_capacity) p_.victims[p_.n_victims++] = r;
  }
  uint32_t size() const { return p_.n_acts; }

 private:
  void add(uint8_t op, sluice_seq_ref r, uint32_t tokens, uint32_t drafts) {
    const uint32_t at = p_.n_acts;
    if (at >= p_.capacity) throw Error(SLUICE_E_INTERNAL, "the plan holds more acts than the host has room for");
    p_.op[at] = op, p_.ref[at] = r, p_.tokens[at] = tokens, p_.drafts[at] = drafts;
    p_.n_acts = at + 1;
  }
  sluice_sched_plan &p_;
};

/// One entry of sluice_sched_events.
struct Event {
  uint8_t kind;
  sluice_seq_ref ref;
  uint32_t computed, tokens;
  uint64_t device_ns;
};

/// The base of a policy. The derived class allocates whatever it will need in its constructor, whose parameters are
/// (const Config &, const sluice_sched_setup &), and names its SLUICE_SCHEDF_* in `static constexpr uint32_t kFlags`.
/// Overrides are public.
class Scheduler {
 public:
  virtual ~Scheduler() = default;
  virtual void on_event(const Event &) {}
  virtual void plan(const View &, Plan &) = 0;
  virtual void reconfigure(const Config &) {}
  virtual uint32_t explain(sluice_seq_ref, char *, uint32_t) const { return 0; }
  /// The state as bytes; all three or none.
  virtual uint64_t state_bytes() const { return 0; }
  virtual void save(unsigned char *) const {}
  virtual void load(const unsigned char *) {}
};

template <class T> struct SchedulerAdapter {
  struct Box : detail::Box<T> {
    const sluice_sched_table *table;
    Box(const sluice_host_api *h, const Config &c, const sluice_sched_setup &s)
        : detail::Box<T>(h, c, s), table(s.table) {}
  };
  static Box &at(sluice_scheduler *s) { return need(s), *reinterpret_cast<Box *>(s); }
  static const Box &at(const sluice_scheduler *s) { return need(s), *reinterpret_cast<const Box *>(s); }

  static int32_t create(const sluice_host_api *h, const sluice_config *c, const sluice_sched_setup *s,
                        sluice_scheduler **out, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(h, s, out);
      *out = reinterpret_cast<sluice_scheduler *>(new Box(h, Config(h, c), *s));
    });
  }
  static void destroy(sluice_scheduler *s) noexcept { delete reinterpret_cast<Box *>(s); }
  static int32_t on_events(sluice_scheduler *s, const sluice_sched_events *e, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(e);
      for (uint32_t i = 0; i < e->n; ++i)
        at(s).object.on_event({e->kind[i], e->ref[i], e->computed[i], e->tokens[i], e->device_ns[i]});
    });
  }
  static int32_t plan(sluice_scheduler *s, const sluice_sched_view *v, sluice_sched_plan *p,
                      sluice_status *st) noexcept {
    return guard(st, [&] {
      need(v, p);
      Plan out(*p);
      at(s).object.plan({*v, *at(s).table}, out);
    });
  }
  static int32_t reconfigure(sluice_scheduler *s, const sluice_config *c, sluice_status *st) noexcept {
    return guard(st, [&] { at(s).object.reconfigure(Config(at(s).host, c)); });
  }
  static uint32_t explain(const sluice_scheduler *s, sluice_seq_ref r, char *buf, uint32_t cap) noexcept {
    uint32_t n = 0;
    return guard(nullptr, [&] { n = at(s).object.explain(r, buf, cap); }) == SLUICE_OK ? n : 0;
  }
  static int32_t save(const sluice_scheduler *s, void *dst, uint64_t cap, uint64_t *len, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(len);
      *len = at(s).object.state_bytes();
      if (dst == nullptr) return;
      if (cap < *len) throw Error(SLUICE_E_RESOURCE_EXHAUSTED, "the state needs " + std::to_string(*len) + " bytes");
      at(s).object.save(static_cast<unsigned char *>(dst));
    });
  }
  static int32_t load(sluice_scheduler *s, const void *src, uint64_t len, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(src);
      if (len != at(s).object.state_bytes())
        throw Error(SLUICE_E_INVALID_ARGUMENT, "the state is of another build or another table");
      at(s).object.load(static_cast<const unsigned char *>(src));
    });
  }
  static sluice_scheduler_vtbl vtbl() {
    using detail::overrides;
    sluice_scheduler_vtbl v{};
    v.struct_size = SLUICE_SIZE_THROUGH(sluice_scheduler_vtbl, load);
    v.flags = T::kFlags;
    v.create = create, v.destroy = destroy, v.on_events = on_events, v.plan = plan;
    if (overrides(&T::reconfigure, &Scheduler::reconfigure)) v.reconfigure = reconfigure;
    if (overrides(&T::explain, &Scheduler::explain)) v.explain = explain;
    if (overrides(&T::state_bytes, &Scheduler::state_bytes)) v.save = save, v.load = load;
    return v;
  }
};

}  // namespace v0
}  // namespace sluice::sdk

#define SLUICE_SCHEDULER_PLUGIN(T, NAME, VERSION, FIELDS) \
  SLUICE_PLUGIN(SLUICE_KIND_SCHEDULER, scheduler, sluice::sdk::SchedulerAdapter, T, NAME, VERSION, FIELDS, "")
