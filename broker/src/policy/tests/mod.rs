mod decisions;
mod explanations;
mod fake;
mod loading;
mod shipped;
