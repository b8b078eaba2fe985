// SPDX-License-Identifier: GPL-3.0-or-later
#include "grid_messages.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <optional>
#include <stdexcept>

namespace wavesfm {

namespace {

using pmt::pmt_t;

constexpr std::size_t tries = 4;            // vectors looked at before a new one is made
constexpr std::size_t most_kept = 8u << 20; // values of the vectors that are used again, 64 MiB

// A c32vector as the memory of a grid; found again by the type of its deleter.
struct VectorHolder {
    pmt_t vector;
    void operator()(void*) { vector.reset(); }
};

pmt_t vector_of(const Grid& grid, std::size_t n) {
    const auto* holder = std::get_deleter<VectorHolder>(grid.memory);
    return holder && pmt::length(holder->vector) == n ? holder->vector : pmt::init_c32vector(n, grid.data);
}

struct Keys {
#define KEY(name) const pmt_t name = pmt::intern(#name)
    KEY(arrived_s);
    KEY(backed_off);
    KEY(bundle_id);
    KEY(latency_s);
    KEY(method);
    KEY(n_nonfinite);
    KEY(n_samples);
    KEY(nmse_db);
    KEY(noise_power);
    KEY(numerology);
    KEY(rate_hz);
    KEY(residual);
    KEY(run);
    KEY(sequence);
    KEY(shape);
    KEY(snr_db);
    KEY(start_sample);
    KEY(sync_metric);
    KEY(time);
#undef KEY
};

const Keys& keys() {
    static const Keys made; // interning takes a lock
    return made;
}

pmt_t from_number(double value) {
    return std::isnan(value) ? pmt::PMT_NIL : pmt::from_double(value);
}

pmt_t from_optional(const std::optional<double>& value) {
    return value ? pmt::from_double(*value) : pmt::PMT_NIL;
}

pmt_t from_time(const std::optional<StreamTime>& time) {
    if (!time) {
        return pmt::PMT_NIL;
    }
    return pmt::make_tuple(pmt::from_uint64(static_cast<std::uint64_t>(time->full_s)),
                           pmt::from_double(time->frac_s));
}

using Fact = std::pair<pmt_t, pmt_t>; // key and value

std::vector<Fact> facts_of(const Slot& slot) {
    const Keys& k = keys();
    return {{k.start_sample, pmt::from_uint64(slot.start_sample)},
            {k.n_samples, pmt::from_uint64(slot.n_samples)},
            {k.rate_hz, pmt::from_double(slot.rate_hz)},
            {k.time, from_time(slot.time)},
            {k.sync_metric, from_optional(slot.sync_metric)},
            {k.n_nonfinite, pmt::from_uint64(slot.n_nonfinite)},
            {k.arrived_s, from_optional(slot.arrived_s)}};
}

std::vector<Fact> facts_of(const SlotAnswer& answer, std::uint64_t sequence) {
    const Keys& k = keys();
    const Slot& slot = answer.slot;
    const ChannelEstimate& e = answer.estimate;
    return {{k.method, pmt::intern(e.method)},
            {k.noise_power, pmt::from_double(e.noise_power)},
            {k.snr_db, pmt::from_double(e.snr_db)},
            {k.residual, pmt::from_double(e.residual)},
            {k.nmse_db, from_number(e.nmse_db)},
            {k.backed_off, pmt::from_bool(e.backed_off)},
            {k.start_sample, pmt::from_uint64(slot.start_sample)},
            {k.n_samples, pmt::from_uint64(slot.n_samples)},
            {k.time, from_time(slot.time)},
            {k.latency_s, from_optional(e.latency_s)},
            {k.n_nonfinite, pmt::from_uint64(slot.n_nonfinite)},
            {k.bundle_id, pmt::intern(e.bundle_id)},
            {k.rate_hz, pmt::from_double(slot.rate_hz)},
            {k.sequence, pmt::from_uint64(sequence)}};
}

// A dictionary of facts whose keys differ, in their order.
pmt_t dictionary(const std::vector<Fact>& facts) {
    pmt_t made = pmt::make_dict();
    for (auto fact = facts.rbegin(); fact != facts.rend(); ++fact) { // it grows at its front
        made = pmt::acons(fact->first, fact->second, made);
    }
    return made;
}

// Facts of each of several slots, with equal keys, as vectors.
std::vector<Fact> gathered(const std::vector<std::vector<Fact>>& each) {
    std::vector<Fact> facts = each.front();
    for (std::size_t i = 0; i < facts.size(); i++) {
        facts[i].second = pmt::make_vector(each.size(), pmt::PMT_NIL);
        for (std::size_t slot = 0; slot < each.size(); slot++) {
            pmt::vector_set(facts[i].second, slot, each[slot][i].second);
        }
    }
    return facts;
}

void add_format(std::vector<Fact>& facts, const GridFormat& format, std::optional<std::size_t> count) {
    const auto side = [&](std::size_t i) { return pmt::from_uint64(format.shape[i]); };
    const pmt_t shape = count ? pmt::make_tuple(pmt::from_uint64(*count), side(0), side(1), side(2))
                              : pmt::make_tuple(side(0), side(1), side(2));
    facts.emplace_back(keys().shape, shape);
    facts.emplace_back(keys().numerology, pmt::intern(format.numerology));
}

// ---- reading

[[noreturn]] void refuse(const std::string& text) {
    throw std::invalid_argument(text);
}

std::string shortest(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

std::string written(const pmt_t& value) {
    if (pmt::is_symbol(value)) {
        return pmt::symbol_to_string(value);
    }
    if (!pmt::is_tuple(value)) {
        return pmt::write_string(value);
    }
    std::string text;
    for (std::size_t i = 0; i < pmt::length(value); i++) {
        text += (i ? ", " : "") + pmt::write_string(pmt::tuple_ref(value, i));
    }
    return "(" + text + ")";
}

std::string written(const std::array<std::size_t, 3>& shape) {
    return "(" + std::to_string(shape[0]) + ", " + std::to_string(shape[1]) + ", " +
           std::to_string(shape[2]) + ")";
}

double number(const pmt_t& value, const std::string& key) {
    if (!pmt::is_uint64(value) && !pmt::is_integer(value) && !pmt::is_real(value)) {
        refuse(key + ": not a number");
    }
    const double found = pmt::is_uint64(value)    ? static_cast<double>(pmt::to_uint64(value))
                         : pmt::is_integer(value) ? static_cast<double>(pmt::to_long(value))
                                                  : pmt::to_double(value);
    if (!std::isfinite(found)) {
        refuse(key + ": not a finite number");
    }
    return found;
}

// Facts of slot i of a PDU of one or of several slots.
class FactReader {
public:
    FactReader(const pmt_t& facts, std::optional<std::size_t> place) : facts_(facts), place_(place) {}

    std::optional<double> real(const pmt_t& key) const {
        const pmt_t value = at(key);
        return pmt::is_null(value) ? std::nullopt : std::optional<double>(number(value, name(key)));
    }

    std::uint64_t count(const pmt_t& key, std::uint64_t missing) const {
        const pmt_t value = at(key);
        if (pmt::is_null(value)) {
            return missing;
        }
        if (pmt::is_uint64(value)) {
            return pmt::to_uint64(value);
        }
        const double found = number(value, name(key));
        if (found < 0.0 || found >= 18446744073709551616.0 || found != std::floor(found)) {
            refuse(name(key) + ": found " + shortest(found) + ", expected a count below 2^64");
        }
        return static_cast<std::uint64_t>(found);
    }

    std::optional<StreamTime> time(const pmt_t& key) const {
        const pmt_t value = at(key);
        if (pmt::is_null(value)) {
            return std::nullopt;
        }
        if (!pmt::is_tuple(value) || pmt::length(value) < 2) {
            refuse(name(key) + ": not a tuple (seconds, fraction)");
        }
        const double seconds = std::trunc(number(pmt::tuple_ref(value, 0), name(key)));
        const double fraction = number(pmt::tuple_ref(value, 1), name(key));
        const double whole = seconds + std::floor(fraction);
        if (!(whole >= 0.0 && whole < 9223372036854775808.0)) {
            refuse(name(key) + ": not a time from 0 to 2^63 s");
        }
        const pmt_t first = pmt::tuple_ref(value, 0);
        const auto exact = pmt::is_uint64(first) ? static_cast<std::int64_t>(pmt::to_uint64(first))
                                                 : static_cast<std::int64_t>(seconds);
        return StreamTime{exact, 0.0}.advanced(fraction);
    }

private:
    pmt_t at(const pmt_t& key) const {
        const pmt_t value = pmt::dict_ref(facts_, key, pmt::PMT_NIL);
        if (!place_ || !pmt::is_vector(value)) {
            return value;
        }
        if (*place_ >= pmt::length(value)) {
            refuse(name(key) + ": found " + std::to_string(pmt::length(value)) +
                   " values, expected one a slot");
        }
        return pmt::vector_ref(value, *place_);
    }

    static std::string name(const pmt_t& key) { return pmt::symbol_to_string(key); }

    const pmt_t facts_;
    const std::optional<std::size_t> place_;
};

// Slots of the shape that a PDU declares: none for the shape of one slot, or no shape.
std::optional<std::size_t> declared_count(const pmt_t& facts, const GridFormat& format) {
    const pmt_t shape = pmt::dict_ref(facts, keys().shape, pmt::PMT_NIL);
    if (pmt::is_null(shape)) {
        return std::nullopt;
    }
    const std::size_t sides = pmt::is_tuple(shape) ? pmt::length(shape) : 0;
    bool fits = sides == 3 || sides == 4;
    for (std::size_t i = 0; fits && i < sides; i++) {
        const pmt_t side = pmt::tuple_ref(shape, i);
        fits = pmt::is_uint64(side) || (pmt::is_integer(side) && pmt::to_long(side) >= 0);
        fits = fits && (sides - i > 3 || pmt::to_uint64(side) == format.shape[i + 3 - sides]);
    }
    if (!fits) {
        refuse("shape: found " + written(shape) + ", expected " + written(format.shape));
    }
    return sides == 4 ? std::optional<std::size_t>(pmt::to_uint64(pmt::tuple_ref(shape, 0))) : std::nullopt;
}

} // namespace

Grid PmtGrids::allocate(std::size_t n) {
    const std::lock_guard<std::mutex> lock(mutex_);
    pmt_t vector;
    for (std::size_t tried = 0; tried < tries && !vectors_.empty() && !vector; tried++) {
        const pmt_t oldest = std::move(vectors_.front());
        vectors_.pop_front();
        if (oldest.use_count() == 1 && pmt::length(oldest) == n) {
            std::atomic_thread_fence(std::memory_order_acquire); // after the last reader's release
            vector = oldest;
        } else if (pmt::length(oldest) == n) {
            vectors_.push_back(oldest); // somebody keeps it
        }
    }
    if (!vector) {
        vector = pmt::make_c32vector(n, 0.0f);
    }
    vectors_.push_back(vector);
    if (vectors_.size() * n > most_kept) {
        vectors_.pop_front();
    }
    std::size_t length = 0;
    auto* data = pmt::c32vector_writable_elements(vector, length);
    return {data, std::shared_ptr<void>(data, VectorHolder{vector})};
}

pmt::pmt_t slot_to_pdu(const Slot& slot, const GridFormat& format) {
    auto facts = facts_of(slot);
    add_format(facts, format, std::nullopt);
    return pmt::cons(dictionary(facts), vector_of(slot.grid, format.size()));
}

pmt::pmt_t slots_to_pdu(const std::vector<Slot>& slots, const GridFormat& format) {
    std::vector<std::vector<Fact>> each;
    const Grid grids = PmtGrids().allocate(slots.size() * format.size());
    auto* out = grids.data;
    for (const auto& slot : slots) {
        each.push_back(facts_of(slot));
        out = std::copy_n(slot.grid.data, format.size(), out);
    }
    auto facts = gathered(each);
    add_format(facts, format, slots.size());
    return pmt::cons(dictionary(facts), vector_of(grids, slots.size() * format.size()));
}

std::vector<Slot> slots_from_pdu(const pmt::pmt_t& message, const GridFormat& format) {
    if (!pmt::is_pair(message) || !pmt::is_dict(pmt::car(message))) {
        refuse("found no pair (dictionary . vector), expected one");
    }
    const pmt_t facts = pmt::car(message), vector = pmt::cdr(message);
    const pmt_t numerology = pmt::dict_ref(facts, keys().numerology, pmt::PMT_NIL);
    if (!pmt::is_null(numerology) && written(numerology) != format.numerology) {
        refuse("numerology: found " + written(numerology) + ", expected " + format.numerology);
    }
    const auto count = declared_count(facts, format);
    if (!pmt::is_c32vector(vector)) {
        refuse("found no c32vector, expected one");
    }
    std::size_t n = 0;
    const auto* values = pmt::c32vector_elements(vector, n);
    if (n % format.size() || n / format.size() != count.value_or(1)) {
        refuse("grid: found " + std::to_string(n) + " values, expected " + written(format.shape) + ", " +
               std::to_string(count.value_or(1) * format.size()));
    }
    std::vector<Slot> slots;
    for (std::size_t i = 0; i < count.value_or(1); i++) {
        const FactReader read(facts, count ? std::optional<std::size_t>(i) : std::nullopt);
        const Keys& k = keys();
        auto* data = const_cast<std::complex<float>*>(values + i * format.size());
        slots.push_back({{data, std::shared_ptr<void>(data, VectorHolder{vector})},
                         read.count(k.start_sample, 0),
                         read.count(k.n_samples, format.slot_samples),
                         read.real(k.rate_hz).value_or(0.0),
                         read.time(k.time),
                         read.count(k.n_nonfinite, 0),
                         read.real(k.sync_metric),
                         read.real(k.arrived_s)});
    }
    return slots;
}

pmt::pmt_t estimate_to_pdu(const SlotAnswer& answer, const GridFormat& format, std::uint64_t run,
                           std::uint64_t sequence) {
    auto facts = facts_of(answer, sequence);
    facts.emplace_back(keys().run, pmt::from_uint64(run));
    add_format(facts, format, std::nullopt);
    return pmt::cons(dictionary(facts), vector_of(answer.estimate.channel, format.size()));
}

pmt::pmt_t estimates_to_pdu(const std::vector<SlotAnswer>& answers, const GridFormat& format,
                            std::uint64_t run, std::uint64_t sequence) {
    std::vector<std::vector<Fact>> each;
    const Grid channels = PmtGrids().allocate(answers.size() * format.size());
    auto* out = channels.data;
    for (const auto& answer : answers) {
        each.push_back(facts_of(answer, sequence++));
        out = std::copy_n(answer.estimate.channel.data, format.size(), out);
    }
    auto facts = gathered(each);
    facts.emplace_back(keys().run, pmt::from_uint64(run));
    add_format(facts, format, answers.size());
    return pmt::cons(dictionary(facts), vector_of(channels, answers.size() * format.size()));
}

} // namespace wavesfm
