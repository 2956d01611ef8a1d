#include "core/conformance/decoder_subject.hpp"

#include <fmt/format.h>

#include "core/conformance/stages.hpp"

namespace sluice::conformance {

bool DecoderSubject::create() {
  findings.doing("creating it for a model with heads");
  auto made = plugin::Decoder::create(subject_.library(), subject_.api(), *subject_.options(), 8, target);
  if (!made) {
    if (made.error().code == Code::kInternal) fail("I1 needs add up", made.error().message, "see sluice_decoder_needs");
    else findings.skip("create is refused: " + made.error().message);
    return false;
  }
  instance_ = std::move(*made);
  decoder = instance_->get(), needs = instance_->needs();
  if ((needs.proposals == 0) != (needs.max_nodes == 0) || (needs.max_nodes > 0 && needs.max_depth == 0))
    fail("I1 needs add up", fmt::format("proposals {:#x}, max_nodes {}, max_depth {}", needs.proposals, needs.max_nodes, needs.max_depth),
         "all three are 0 for plain decoding, none otherwise");
  if ((needs.proposals & SLUICE_PROPOSE_SAMPLED) != 0 && (needs.proposals & SLUICE_PROPOSE_SAMPLED_IID) != 0)
    fail("I1 needs add up", "siblings are drawn with and without replacement", "SAMPLED and SAMPLED_IID exclude each other");
  if (needs.n_heads > target.n_heads)
    fail("I1 needs add up", fmt::format("it uses {} heads of a model that has {}", needs.n_heads, target.n_heads),
         "look at setup.target in create()");
  sluice_decoder_commit nothing{};
  nothing.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
  const uint32_t indptr[] = {0};
  nothing.tok_indptr = indptr;
  findings.doing("commit() of nothing");
  if (SLUICE_HAS_FN(&v, sluice_decoder_vtbl, commit) && v.commit(decoder, &nothing, nullptr) != SLUICE_OK)
    fail("I5 empty calls succeed", "commit() without sequences failed", "loops over zero sequences end at once");
  return true;
}

DecoderSubject::Text DecoderSubject::open(const Tokens &tokens, uint64_t id) {
  Text text{nullptr, tokens};
  if (!SLUICE_HAS_FN(&v, sluice_decoder_vtbl, seq_open)) return text;
  const int32_t stop[] = {2};
  sluice_seq_start start{};
  start.struct_size = SLUICE_SIZE_THROUGH(sluice_seq_start, request);
  start.n_prompt = static_cast<uint32_t>(tokens.size()), start.prompt = text.tokens.data();
  start.seq = start.request_id = id, start.seed = 99, start.n_answers = 1, start.max_new = 400;
  start.n_stop = 1, start.stop_tokens = stop;
  findings.doing("seq_open()");
  sluice_status st = plugin::fresh_status();
  if (const int32_t code = v.seq_open(decoder, &start, &text.seq, &st); code != SLUICE_OK)
    fail("I0 ordinary calls succeed", fmt::format("seq_open returned {}: {}", code, st.msg), "see kinds/decoder.h");
  return text;
}

DecoderSubject::Seq DecoderSubject::fork(Seq from) {
  Seq made = nullptr;
  if (!SLUICE_HAS_FN(&v, sluice_decoder_vtbl, seq_fork)) return made;
  findings.doing("seq_fork()");
  sluice_status st = plugin::fresh_status();
  if (const int32_t code = v.seq_fork(decoder, from, &made, &st); code != SLUICE_OK)
    fail("I0 ordinary calls succeed", fmt::format("seq_fork returned {}: {}", code, st.msg), "a fork is a copy of the state");
  return made;
}

void DecoderSubject::commit(Text &text, const Tokens &more) {
  text.tokens.insert(text.tokens.end(), more.begin(), more.end());
  if (!SLUICE_HAS_FN(&v, sluice_decoder_vtbl, commit)) return;
  sluice_decoder_commit c{};
  c.struct_size = SLUICE_SIZE_THROUGH(sluice_decoder_commit, draft_ns);
  const uint32_t indptr[] = {0, static_cast<uint32_t>(more.size())}, none[] = {0};
  c.n_seqs = 1, c.seq = &text.seq, c.tok_indptr = indptr, c.tok = more.data(), c.n_drafted = c.n_accepted = none;
  c.step_ns = c.plain_ns = 1'000'000;
  findings.doing("commit()");
  sluice_status st = plugin::fresh_status();
  if (const int32_t code = v.commit(decoder, &c, &st); code != SLUICE_OK)
    fail("I0 ordinary calls succeed", fmt::format("commit returned {}: {}", code, st.msg), "see kinds/decoder.h");
}

void DecoderSubject::close(Seq seq) {
  if (seq != nullptr) v.seq_close(decoder, seq);
}

void check_decoder(const std::string &path, Findings &findings) {
  const auto subject = Subject::load(path, findings);
  if (!subject) return;
  if (subject->options() == nullptr) return findings.skip("it has a required option: " + subject->needs_options());
  DecoderSubject decoder(*subject, findings);
  if (!decoder.create()) return;
  if (decoder.needs.max_branches > 1) return check_branches(decoder);
  if (decoder.needs.max_nodes == 0) return findings.note("it drafts nothing");
  check_drafts(decoder);
}

}  // namespace sluice::conformance
