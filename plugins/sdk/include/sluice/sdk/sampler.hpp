// sluice/sdk/sampler.hpp - a sampler as a class, with its state per sequence as a copyable type.
#pragma once
#include <sluice/abi/kinds/backend.h>
#include <sluice/abi/kinds/sampler.h>
#include <sluice/sdk/plugin.hpp>

namespace sluice::sdk {
inline namespace v0 {

/// The rows of one apply(), with the author's sequence type.
template <class Seq> struct Rows {
  const sluice_sample_batch &b;
  uint32_t size() const { return b.n_rows; }
  const Seq &seq(uint32_t row) const { return *reinterpret_cast<const Seq *>(b.row_seq[row]); }
  /// LOGITS_HOST: [vocab_size].
  float *logits(uint32_t row) const { return b.logits_host + size_t{row} * b.vocab_size; }
  /// CANDIDATES: [n_candidates], ids end at the first -1.
  const int32_t *cand_ids(uint32_t row) const { return b.cand_ids + size_t{row} * b.n_candidates; }
  float *cand_logits(uint32_t row) const { return b.cand_logits + size_t{row} * b.n_candidates; }
};

/// The base of a sampler. Seq is its state per sequence; a fork is a copy.
/// The derived class has a constructor (const sluice_host_api &, const Config &, const sluice_model_info &) and
///   static constexpr uint32_t kFlags  SLUICE_SMPF_*
///   static constexpr uint32_t kForms  SLUICE_ROW_* that apply() takes
///   static constexpr uint32_t kMinCandidates
/// Overrides are public. Threads as in kinds/sampler.h: validate [io], all others [engine].
template <class Seq> class Sampler {
 public:
  using SeqType = Seq;
  virtual ~Sampler() = default;
  virtual void validate(const Config &) const {}
  /// `request` holds the PER_REQUEST options.
  virtual Seq open(const sluice_seq_start &, const Config &request) = 0;
  /// Appends stages; false = this sampler must run on the host. Then the spec may be left half written.
  virtual bool lower(const Seq &, const sluice_sample_caps &, sluice_sample_spec &) const { return false; }
  /// Logit bias: calls add(token, value).
  struct BiasOut {
    int32_t *token;
    float *value;
    uint32_t room, n = 0;
    void add(int32_t t, float v) {
      if (n < room) token[n] = t, value[n] = v;
      ++n;
    }
  };
  virtual void bias(const Seq &, BiasOut &) const {}
  /// See sluice_sampler_vtbl.fill_masks; masks is [1 + n_nodes, n_words].
  virtual void fill_masks(const Seq &, uint32_t /*n_nodes*/, const int32_t * /*token*/, const int32_t * /*parent*/,
                          uint32_t * /*masks*/, uint32_t /*n_words*/, uint8_t * /*dead*/) const {}
  virtual void apply(const Rows<Seq> &, sluice_sample_out &) const {}
  virtual void commit(Seq &, const int32_t * /*token*/, const float * /*logprob*/, uint32_t /*n*/) {}
  virtual void reconfigure(const Config &) {}
};

template <class T> struct SamplerAdapter {
  using Seq = typename T::SeqType;
  using Base = Sampler<Seq>;
  using Box = detail::Box<T>;
  static Box &at(sluice_sampler *s) { return need(s), *reinterpret_cast<Box *>(s); }
  static const Box &at(const sluice_sampler *s) { return need(s), *reinterpret_cast<const Box *>(s); }
  static Seq &at(sluice_sampler_seq *s) { return need(s), *reinterpret_cast<Seq *>(s); }
  static const Seq &at(const sluice_sampler_seq *s) { return need(s), *reinterpret_cast<const Seq *>(s); }

  static int32_t create(const sluice_host_api *h, const sluice_config *c, const sluice_model_info *m,
                        sluice_sampler **out, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(h, m, out);
      *out = reinterpret_cast<sluice_sampler *>(new Box(h, *h, Config(h, c), *m));
    });
  }
  static void destroy(sluice_sampler *s) noexcept { delete reinterpret_cast<Box *>(s); }
  static int32_t validate(const sluice_sampler *s, const sluice_config *c, sluice_status *st) noexcept {
    return guard(st, [&] { at(s).object.validate(Config(at(s).host, c)); });
  }
  static int32_t seq_open(sluice_sampler *s, const sluice_seq_start *start, sluice_sampler_seq **out,
                          sluice_status *st) noexcept {
    return guard(st, [&] {
      need(start, out);
      const Config request(at(s).host, start->request);
      *out = reinterpret_cast<sluice_sampler_seq *>(new Seq(at(s).object.open(*start, request)));
    });
  }
  static int32_t seq_fork(sluice_sampler *s, const sluice_sampler_seq *from, sluice_sampler_seq **out,
                          sluice_status *st) noexcept {
    return guard(st, [&] {
      need(s, out);
      *out = reinterpret_cast<sluice_sampler_seq *>(new Seq(at(from)));
    });
  }
  static void seq_close(sluice_sampler *, sluice_sampler_seq *q) noexcept { delete reinterpret_cast<Seq *>(q); }
  static int32_t lower(const sluice_sampler *s, const sluice_sampler_seq *q, const sluice_sample_caps *caps,
                       sluice_sample_spec *spec, sluice_status *st) noexcept {
    bool lowered = false;
    const int32_t code = guard(st, [&] {
      need(caps, spec);
      lowered = at(s).object.lower(at(q), *caps, *spec);
    });
    if (code != SLUICE_OK) return code;
    return lowered ? SLUICE_OK : fail(st, SLUICE_E_UNSUPPORTED, "runs on the host");
  }
  static int32_t bias(const sluice_sampler *s, const sluice_sampler_seq *q, int32_t *token, float *value, uint32_t *n,
                      sluice_status *st) noexcept {
    return guard(st, [&] {
      need(n);
      typename Base::BiasOut out{token, value, *n};
      at(s).object.bias(at(q), out);
      const uint32_t room = *n;
      *n = out.n;
      if (out.n > room) throw Error(SLUICE_E_RESOURCE_EXHAUSTED, "more logit biases than there is room for");
    });
  }
  static int32_t fill_masks(const sluice_sampler *s, const sluice_sampler_seq *q, uint32_t n_nodes,
                            const int32_t *token, const int32_t *parent, uint32_t *masks, uint32_t n_words,
                            uint8_t *dead, sluice_status *st) noexcept {
    return guard(st, [&] {
      need(masks);
      at(s).object.fill_masks(at(q), n_nodes, token, parent, masks, n_words, dead);
    });
  }
  static int32_t apply(const sluice_sampler *s, const sluice_sample_batch *b, sluice_sample_out *out,
                       sluice_status *st) noexcept {
    return guard(st, [&] {
      need(b, out);
      if ((b->form & T::kForms) == 0)
        throw Error(SLUICE_E_UNSUPPORTED, "row form " + std::to_string(b->form) + " is not among those announced");
      at(s).object.apply(Rows<Seq>{*b}, *out);
    });
  }
  static int32_t commit(sluice_sampler *s, sluice_sampler_seq *const *q, const uint32_t *tok_indptr, const int32_t *tok,
                        const float *logprob, uint32_t n_seqs, sluice_status *st) noexcept {
    return guard(st, [&] {
      for (uint32_t i = 0; i < n_seqs; ++i) {
        const uint32_t first = tok_indptr[i];
        at(s).object.commit(at(q[i]), tok + first, logprob == nullptr ? nullptr : logprob + first,
                            tok_indptr[i + 1] - first);
      }
    });
  }
  static int32_t reconfigure(sluice_sampler *s, const sluice_config *c, sluice_status *st) noexcept {
    return guard(st, [&] { at(s).object.reconfigure(Config(at(s).host, c)); });
  }
  static sluice_sampler_vtbl vtbl() {
    using detail::overrides;
    sluice_sampler_vtbl v{};
    v.struct_size = SLUICE_SIZE_THROUGH(sluice_sampler_vtbl, reconfigure);
    v.flags = T::kFlags, v.forms = T::kForms, v.min_candidates = T::kMinCandidates;
    v.create = create, v.destroy = destroy, v.seq_open = seq_open, v.seq_fork = seq_fork, v.seq_close = seq_close;
    v.commit = commit;
    if (overrides(&T::validate, &Base::validate)) v.validate = validate;
    if (overrides(&T::lower, &Base::lower)) v.lower = lower;
    if (overrides(&T::bias, &Base::bias)) v.bias = bias;
    if (overrides(&T::fill_masks, &Base::fill_masks)) v.fill_masks = fill_masks;
    if ((T::kFlags & SLUICE_SMPF_MASKS) == 0) v.apply = apply;
    if (overrides(&T::reconfigure, &Base::reconfigure)) v.reconfigure = reconfigure;
    return v;
  }
};

}  // namespace v0
}  // namespace sluice::sdk

#define SLUICE_SAMPLER_PLUGIN(T, NAME, VERSION, FIELDS) \
  SLUICE_PLUGIN(SLUICE_KIND_SAMPLER, sampler, sluice::sdk::SamplerAdapter, T, NAME, VERSION, FIELDS, "")
