// exp, log, sin, cos and pow in double, the same bits on every machine: they use only +, -, *, /
// and integer operations, which IEEE 754 defines to the last bit, and never the C library, whose
// results differ between versions. (No fused multiply-add either: where the processor lacks one,
// emulating it is slow.) The build must not contract a * b + c, nor keep extra precision.
//
// Errors are in units in the last place (ulp) of the result, as tests/cpp/base/test_numeric.cc
// checks them against long double.
#pragma once

#include <cstdint>

namespace gemtp {

/// e^x within 1 ulp (subnormal results within 2). Above 709.78 infinity, below -745.13 zero.
double portable_exp(double x);

/// Replaces each of x[0] to x[n-1] by its portable_exp(); faster when all are between -700 and 700.
void portable_exp(double* x, int64_t n);

/// Natural logarithm within 1 ulp. 0 gives -infinity, a negative number NaN.
double portable_log(double x);

/// Sine and cosine within 1 ulp, for |x| <= 2^24, which is enough for RoPE (position times
/// frequency). Throws Error{kInternal} for NaN and for larger |x|, where the reduction would lose
/// accuracy.
void portable_sincos(double x, double* sin, double* cos);

/// base^exponent within 1 ulp (subnormal results within 2) for finite base > 0; NaN for any other
/// base and for exponent NaN.
double portable_pow(double base, double exponent);

}  // namespace gemtp
