"""Studies from any source → tokens of the model, in a store without patient data.

source.py        what a source is                        store.py  shards of safetensors and their index
dicom_folder.py  folders of DICOM files                  run.py    source → store, parallel and resumable
archive.py       an archive, by wado.py or c_move.py     encode.py kept patches → latents, or a sample of patches
mr_rate.py, bids.py  public layouts of NIfTI files       scrub.py  texts without words of the patient's name
dicom_study.py, volumes.py, nifti.py, known.py           what the sources share
"""
