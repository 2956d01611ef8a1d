// sluice/sdk/decoder.hpp - a decoder as a class, with its state per sequence as a copyable type.
#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/decoder.h>
#include <sluice/sdk/plugin.hpp>

namespace sluice::sdk {
inline namespace v0 {

/// The tree of one draft() call. Nodes beyond the host's room are dropped, and told by `false`.
class Tree {
 public:
  explicit Tree(sluice_draft_tree &t) : t_(t) {}
  uint32_t size() const { return t_.n; }
  /// Appends a node and returns its index, or -1 when there is no room.
  /// seq     index into in.seq      parent  node, or -1 = the root of that sequence
  /// score   the host trims the smallest first      q  -1 = deterministic, else the q row it was drawn from
  int32_t add(uint32_t seq, int32_t parent, int32_t token, float score, int32_t q = -1, uint32_t flags = 0) {
    if (t_.n >= t_.capacity) return -1;
    const uint32_t n = t_.n++;
    t_.seq[n] = seq, t_.parent[n] = parent, t_.token[n] = token;
    t_.score[n] = score, t_.q[n] = q, t_.flags[n] = flags;
    return static_cast<int32_t>(n);
  }
  sluice_draft_tree &raw() { return t_; }

 private:
  sluice_draft_tree &t_;
};

/// The base of a decoder. Seq is its state per sequence; a fork is a copy.
/// The derived class has a constructor (const sluice_host_api &, const Config &, const sluice_decoder_setup &).
/// Overrides are public. Threads as in kinds/decoder.h: needs [init], validate [io], all others [engine].
template <class Seq> class Decoder {
 public:
  using SeqType = Seq;
  virtual ~Decoder() = default;
  /// The struct comes with struct_size set and zeros, which means plain decoding.
  virtual void needs(sluice_decoder_needs &) const {}
  virtual void validate(const Config &) const {}
  virtual Seq open(const sluice_seq_start &, const Config &request) = 0;
  virtual void draft(const sluice_draft_in &, Tree &) {}
  virtual void branch(const sluice_branch_in &, sluice_branch_out &) {}
  virtual void commit(const sluice_decoder_commit &) {}
  virtual void reconfigure(const Config &) {}
  virtual uint32_t wish(const Seq &) const { return 0; }

 protected:
  static Seq &seq(sluice_decoder_seq *s) { return *reinterpret_cast<Seq *>(s); }
};

template <class T> struct DecoderAdapter {
  using Seq = typename T::SeqType;
  using Base = Decoder<Seq>;
  using Box = detail::Box<T>;
  static Box &at(sluice_decoder *d) { return need(d), *reinterpret_cast<Box *>(d); }
  static const Box &at(const sluice_decoder *d) { return need(d), *reinterpret_cast<const Box *>(d); }
  static const Seq &at(const sluice_decoder_seq *s) { return need(s), *reinterpret_cast<const Seq *>(s); }

  static int32_t create(const sluice_host_api *h, const sluice_config *c, const sluice_decoder_setup *s,
                        sluice_decoder **out, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(h, s, out);
      *out = reinterpret_cast<sluice_decoder *>(new Box(h, *h, Config(h, c), *s));
    });
  }
  static void destroy(sluice_decoder *d) noexcept { delete reinterpret_cast<Box *>(d); }
  static int32_t needs(const sluice_decoder *d, sluice_decoder_needs *out, sluice_status *st) noexcept {
    return guard(st, [&] {
      sluice_decoder_needs n{};
      n.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_needs, flags);
      at(d).object.needs(n);
      give(out, n);
    });
  }
  static int32_t validate(const sluice_decoder *d, const sluice_config *c, sluice_status *st) noexcept {
    return guard(st, [&] { at(d).object.validate(Config(at(d).host, c)); });
  }
  static int32_t seq_open(sluice_decoder *d, const sluice_seq_start *start, sluice_decoder_seq **out,
                          sluice_status *st) noexcept {
    return guard(st, [&] {
      need(start, out);
      const Config request(at(d).host, start->request);
      *out = reinterpret_cast<sluice_decoder_seq *>(new Seq(at(d).object.open(*start, request)));
    });
  }
  static int32_t seq_fork(sluice_decoder *d, const sluice_decoder_seq *from, sluice_decoder_seq **out,
                          sluice_status *st) noexcept {
    return guard(st, [&] {
      need(d, out);
      *out = reinterpret_cast<sluice_decoder_seq *>(new Seq(at(from)));
    });
  }
  static void seq_close(sluice_decoder *, sluice_decoder_seq *s) noexcept { delete reinterpret_cast<Seq *>(s); }
  static int32_t draft(sluice_decoder *d, const sluice_draft_in *in, sluice_draft_tree *out,
                       sluice_status *st) noexcept {
    return guard(st, [&] {
      need(in, out);
      Tree tree(*out);
      at(d).object.draft(*in, tree);
    });
  }
  static int32_t branch(sluice_decoder *d, const sluice_branch_in *in, sluice_branch_out *out,
                        sluice_status *st) noexcept {
    return guard(st, [&] {
      need(in, out);
      at(d).object.branch(*in, *out);
    });
  }
  static int32_t commit(sluice_decoder *d, const sluice_decoder_commit *c, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(c);
      at(d).object.commit(*c);
    });
  }
  static int32_t reconfigure(sluice_decoder *d, const sluice_config *c, sluice_status *st) noexcept {
    return guard(st, [&] { at(d).object.reconfigure(Config(at(d).host, c)); });
  }
  static uint32_t wish(const sluice_decoder *d, const sluice_decoder_seq *s) noexcept {
    uint32_t n = 0;
    return guard(nullptr, [&] { n = at(d).object.wish(at(s)); }) == SLUICE_OK ? n : 0;
  }
  static sluice_decoder_vtbl vtbl() {
    using detail::overrides;
    sluice_decoder_vtbl v{};
    v.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_vtbl, wish);
    v.create = create, v.destroy = destroy, v.needs = needs;
    v.seq_open = seq_open, v.seq_fork = seq_fork, v.seq_close = seq_close, v.commit = commit;
    if (overrides(&T::validate, &Base::validate)) v.validate = validate;
    if (overrides(&T::draft, &Base::draft)) v.draft = draft;
    if (overrides(&T::branch, &Base::branch)) v.branch = branch;
    if (overrides(&T::reconfigure, &Base::reconfigure)) v.reconfigure = reconfigure;
    if (overrides(&T::wish, &Base::wish)) v.wish = wish;
    return v;
  }
};

}  // namespace v0
}  // namespace sluice::sdk

#define SLUICE_DECODER_PLUGIN(T, NAME, VERSION, FIELDS) \
  SLUICE_PLUGIN(SLUICE_KIND_DECODER, decoder, sluice::sdk::DecoderAdapter, T, NAME, VERSION, FIELDS, "")
