// Implementation of RowSampler; included by sluice/sdk/sampling.hpp.
#pragma once

namespace sluice::sdk {
inline namespace v0 {

inline void RowSampler::run(float *row, uint32_t vocab, const sluice_sample_spec &spec, const RowInputs &in) {
  row_ = row, vocab_ = vocab, sparse_ = false;
  kind_ = spec.logprobs_kind;
  raw_.clear(), raw_kept_.clear();
  const bool numbers = (spec.flags & SLUICE_SPF_LOGPROB) != 0 || spec.n_logprobs > 0;
  if (numbers && raw_kind()) raw_.assign(row, row + vocab);
  stages(spec, in);
}

inline void RowSampler::run_candidates(const int32_t *ids, const float *logits, uint32_t n, float row_lse,
                                       const sluice_sample_spec &spec, const RowInputs &in) {
  row_ = nullptr, vocab_ = 0, sparse_ = true;
  kind_ = spec.logprobs_kind;
  raw_.clear(), kept_.clear();
  for (uint32_t i = 0; i < n; ++i)
    if (ids[i] >= 0 && logits[i] > kRemoved) kept_.push_back({logits[i], ids[i]});
  raw_kept_ = kept_;
  stages(spec, in);
  raw_lse_ = row_lse;
  raw_lse_known_ = !std::isnan(row_lse);
}

inline void RowSampler::stages(const sluice_sample_spec &spec, const RowInputs &in) {
  lse_known_ = raw_lse_known_ = false;
  if (const char *problem = spec_problem(spec)) throw Error(SLUICE_E_INVALID_ARGUMENT, problem);
  const auto each_penalised = [&](uint32_t scope, auto &&f) {
    const bool with_prompt = (spec.penalty_prompt & scope) != 0;
    for (size_t i = 0; i < in.n_counts; ++i) {
      const TokenCount &c = in.counts[i];
      const uint32_t count = c.in_output + (with_prompt ? c.in_prompt : 0);
      if (count > 0) edit(c.token, [&](float l) { return f(l, count); });
    }
  };
  for (uint32_t i = 0; i < spec.n_stages; ++i) {
    switch (spec.stage[i]) {
      case SLUICE_STAGE_MASK: mask(in.mask); break;
      case SLUICE_STAGE_BIAS:
        for (uint32_t b = 0; b < in.n_bias; ++b)
          edit(in.bias_token[b], [&](float l) { return l + in.bias_value[b]; });
        break;
      case SLUICE_STAGE_REPETITION:
        each_penalised(SLUICE_SCOPE_REPETITION,
                       [&](float l, uint32_t) { return l > 0 ? l / spec.repetition : l * spec.repetition; });
        break;
      case SLUICE_STAGE_FREQUENCY:  // in f64 the product is exact, so fused and separate arithmetic agree
        each_penalised(SLUICE_SCOPE_FREQUENCY, [&](float l, uint32_t count) {
          return static_cast<float>(static_cast<double>(l) - static_cast<double>(spec.frequency) * count);
        });
        break;
      case SLUICE_STAGE_PRESENCE:
        each_penalised(SLUICE_SCOPE_PRESENCE, [&](float l, uint32_t) { return l - spec.presence; });
        break;
      case SLUICE_STAGE_TEMPERATURE: temperature(spec.temperature); break;
      case SLUICE_STAGE_TOP_K: top_k(spec.top_k, (spec.flags & SLUICE_SPF_TOP_K_TIES) != 0); break;
      case SLUICE_STAGE_TOP_P: top_p(spec.top_p); break;
      case SLUICE_STAGE_MIN_P: min_p(spec.min_p); break;
      default: break;  // spec_problem has refused it
    }
  }
}

template <class F> void RowSampler::edit(int32_t token, F &&f) {
  if (!sparse_) {
    if (token >= 0 && static_cast<uint32_t>(token) < vocab_) row_[token] = f(row_[token]);
    return;
  }
  for (Ranked &e : kept_)
    if (e.id == token) {
      e.logit = f(e.logit);
      return;
    }
}

inline void RowSampler::mask(const uint32_t *words) {
  if (words == nullptr) return;
  const auto allowed = [&](uint32_t id) { return (words[id / 32] >> (id % 32) & 1u) != 0; };
  if (sparse_) {
    kept_.erase(std::remove_if(kept_.begin(), kept_.end(),
                               [&](const Ranked &e) { return !allowed(static_cast<uint32_t>(e.id)); }),
                kept_.end());
    return;
  }
  for (uint32_t id = 0; id < vocab_; ++id) {
    if (id % 32 == 0 && words[id / 32] == UINT32_MAX) {
      id += 31;
      continue;
    }
    if (!allowed(id)) row_[id] = kRemoved;
  }
}

inline void RowSampler::temperature(float t) {
  if (t == 0) {
    const int32_t best = argmax();
    const float logit = max_logit();
    kept_.clear();
    sparse_ = true;
    if (best >= 0) kept_.push_back({logit, best});
    return;
  }
  if (t == 1) return;
  if (sparse_) {
    for (Ranked &e : kept_) e.logit /= t;
    return;
  }
  divide_row(row_, vocab_, t);
}

inline void RowSampler::top_k(int32_t k, bool ties) {
  if (k <= 0) return;
  const auto room = static_cast<uint32_t>(k);
  const auto by_rank = [](const Ranked &a, const Ranked &b) { return better(a, b); };
  if (sparse_) {
    if (kept_.size() <= room) return;
    std::nth_element(kept_.begin(), kept_.begin() + (k - 1), kept_.end(), by_rank);
    size_t n = room;
    if (ties)
      n = static_cast<size_t>(std::partition(kept_.begin() + k, kept_.end(),
                                             [limit = kept_[room - 1].logit](const Ranked &e) {
                                               return e.logit == limit;
                                             }) -
                              kept_.begin());
    kept_.resize(n);
    return;
  }
  if (room >= vocab_) return;
  top_k_of_row(row_, vocab_, room, kept_);
  sparse_ = true;
  if (!ties || kept_.size() < room) return;
  const float limit = std::max_element(kept_.begin(), kept_.end(), by_rank)->logit;  // the last in rank
  kept_.erase(std::remove_if(kept_.begin(), kept_.end(), [&](const Ranked &e) { return e.logit == limit; }),
              kept_.end());
  for_each_from(row_, vocab_, [&] { return limit; }, [&](int32_t id) {
    if (row_[id] == limit) kept_.push_back({limit, id});
  });
}

inline void RowSampler::top_p(float p) {
  if (p >= 1) return;
  const float max = max_logit();
  if (max == kRemoved) return;
  if (sparse_) {
    double total = 0;
    for (const Ranked &e : kept_) total += static_cast<double>(exp_nonpositive(e.logit - max));
    keep_best_mass(kept_, max, total * static_cast<double>(p));
    return;
  }
  // Nearly always a small head holds top_p of the mass: collect heads of growing depth until one does.
  const double target = exp_sum(row_, vocab_, max) * static_cast<double>(p);
  for (const float depth : {4.0f, 8.0f, 16.0f, 200.0f}) {
    kept_.clear();
    double mass = 0;
    const float limit = depth > 100 ? std::numeric_limits<float>::lowest() : max - depth;
    for_each_from(row_, vocab_, [&] { return limit; }, [&](int32_t id) {
      kept_.push_back({row_[id], id});
      mass += static_cast<double>(exp_nonpositive(row_[id] - max));
    });
    if (mass > target * (1 + 1e-5)) break;
  }
  sparse_ = true;
  keep_best_mass(kept_, max, target);
}

inline void RowSampler::min_p(float p) {
  if (p <= 0) return;
  const float limit = max_logit() + std::log(p);
  if (sparse_) {
    kept_.erase(std::remove_if(kept_.begin(), kept_.end(), [&](const Ranked &e) { return !(e.logit >= limit); }),
                kept_.end());
    return;
  }
  if (max_logit() == kRemoved) return;
  kept_.clear();
  sparse_ = true;
  for_each_from(row_, vocab_, [&] { return limit; }, [&](int32_t id) { kept_.push_back({row_[id], id}); });
}

inline float RowSampler::max_logit() const {
  if (!sparse_) return row_max(row_, vocab_);
  float max = kRemoved;
  for (const Ranked &e : kept_) max = e.logit > max ? e.logit : max;
  return max;
}

inline int32_t RowSampler::argmax() const {
  if (!sparse_) return row_argmax(row_, vocab_);
  DrawBest d;
  for (const Ranked &e : kept_) d.offer(e.logit, e.id);
  return d.best.id;
}

inline float RowSampler::lse() {
  if (!lse_known_) lse_ = sparse_ ? log_sum_exp(kept_) : log_sum_exp(row_, vocab_);
  lse_known_ = true;
  return lse_;
}

inline float RowSampler::shift() {
  if (kind_ == SLUICE_LOGITS_RAW || kind_ == SLUICE_LOGITS_PROCESSED) return 0;
  if (kind_ == SLUICE_LOGPROBS_PROCESSED) return lse();
  if (!raw_lse_known_)
    raw_lse_ = row_ == nullptr ? log_sum_exp(raw_kept_) : log_sum_exp(raw_.data(), static_cast<uint32_t>(raw_.size()));
  raw_lse_known_ = true;
  return raw_lse_;
}

inline float RowSampler::value(int32_t token) {
  const auto in_list = [token](const std::vector<Ranked> &list) {
    for (const Ranked &e : list)
      if (e.id == token) return e.logit;
    return kRemoved;
  };
  const auto in_row = [token](const float *row, size_t n) {
    return token >= 0 && static_cast<size_t>(token) < n ? row[token] : kRemoved;
  };
  float logit;
  if (raw_kind())
    logit = row_ == nullptr ? in_list(raw_kept_) : in_row(raw_.data(), raw_.size());
  else
    logit = sparse_ ? in_list(kept_) : in_row(row_, vocab_);
  return logit == kRemoved ? kRemoved : logit - shift();
}

inline void RowSampler::best_of(uint32_t n, bool raw) {
  const bool list = raw ? row_ == nullptr : sparse_;
  if (list) {
    best_ = raw ? raw_kept_ : kept_;
    const size_t some = std::min<size_t>(n, best_.size());
    std::partial_sort(best_.begin(), best_.begin() + static_cast<std::ptrdiff_t>(some), best_.end(), better);
    best_.resize(some);
    return;
  }
  top_k_of_row(raw ? raw_.data() : row_, raw ? static_cast<uint32_t>(raw_.size()) : vocab_, n, best_);
  std::sort(best_.begin(), best_.end(), better);
}

inline void RowSampler::top(uint32_t n, int32_t *ids, float *values) {
  best_of(n, raw_kind());
  const float minus = shift();
  for (uint32_t i = 0; i < n; ++i) {
    ids[i] = i < best_.size() ? best_[i].id : -1;
    values[i] = i < best_.size() ? best_[i].logit - minus : kRemoved;
  }
}

inline uint32_t RowSampler::candidates(uint32_t n, int32_t *ids, float *logits) {
  best_of(n, false);
  for (uint32_t i = 0; i < n; ++i) {
    ids[i] = i < best_.size() ? best_[i].id : -1;
    logits[i] = i < best_.size() ? best_[i].logit : kRemoved;
  }
  return static_cast<uint32_t>(best_.size());
}

inline void RowSampler::write_back() {
  if (!sparse_ || row_ == nullptr) return;
  std::fill(row_, row_ + vocab_, kRemoved);
  for (const Ranked &e : kept_) row_[e.id] = e.logit;
}

}  // namespace v0
}  // namespace sluice::sdk
